"""The verbs that are one question and one answer, as a table."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from hyperbox_devcontainer.errors import VerbError
from hyperbox_devcontainer.verbs.session import SessionLike
from hyperbox_langpacks.base import Rung

if TYPE_CHECKING:
    from hyperbox_devcontainer.verbs.server import VerbServer

Args = Mapping[str, Any]
Call = Callable[["VerbServer", Args], Awaitable[Any]]

FLUSH_SECONDS = 60.0
HISTORY_LIMIT = 100_000


class Starting:
    """What ``status`` says while the session is being opened."""

    def __init__(self, project: Mapping[str, Any]) -> None:
        self._project = dict(project)

    def status(self) -> dict[str, Any]:
        """The project with its targets starting."""
        return self._project


def _whole(args: Args, key: str, default: int | None, *, low: int, high: int) -> int | None:
    value = args.get(key, default)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise VerbError(f"{key} must be a whole number from {low} to {high}", key=key)
    return value


def _seconds(args: Args, key: str, default: float) -> float:
    value = args.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) \
            or not math.isfinite(value) or value < 0:
        raise VerbError(f"{key} must be a number of seconds", key=key)
    return float(value)


def args_of(message: Mapping[str, Any]) -> Args:
    """The arguments of a request. Raises VerbError for what is no object."""
    args = message.get("args") or {}
    if not isinstance(args, dict):
        raise VerbError("args must be an object", key="args")
    return args


def words_of(args: Args, key: str) -> frozenset[str]:
    """A set of words, empty where it is not given. Raises VerbError."""
    value = args.get(key) or []
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise VerbError(f"{key} must be a list of words", key=key)
    return frozenset(value)


def _rung(args: Args) -> str | None:
    value = args.get("rung")
    words = [rung.word for rung in Rung]
    if value is not None and value not in words:
        raise VerbError(f"there is no rung {str(value)[:40]!r}", key="rung",
                        hint=f"one of {', '.join(words)}")
    return value


async def _status(server: VerbServer, args: Args) -> Any:
    return server.status()


async def _stop(server: VerbServer, args: Args) -> Any:
    return await server.stop(bool(args.get("fast")))


async def _config(session: SessionLike, args: Args) -> Any:
    return session.config()


async def _history(session: SessionLike, args: Args) -> Any:
    return session.history(_whole(args, "limit", 50, low=1, high=HISTORY_LIMIT) or 1)


async def _flush(session: SessionLike, args: Args) -> Any:
    return await session.flush(_seconds(args, "timeout", FLUSH_SECONDS))


async def _rollback(session: SessionLike, args: Args) -> Any:
    return await session.rollback(_whole(args, "number", None, low=0, high=2**53))


async def _restart(session: SessionLike, args: Args) -> Any:
    return await session.restart(_rung(args))


async def _pause(session: SessionLike, args: Args) -> Any:
    return await session.pause()


async def _resume(session: SessionLike, args: Args) -> Any:
    return await session.resume()


def _of_session(call: Callable[[SessionLike, Args], Awaitable[Any]]) -> Call:
    async def when_open(server: VerbServer, args: Args) -> Any:
        return await call(await server.session(), args)
    return when_open


CALLS: Mapping[str, Call] = {
    "status": _status,
    "stop": _stop,
    **{name: _of_session(call) for name, call in {
        "config": _config,
        "history": _history,
        "flush": _flush,
        "rollback": _rollback,
        "restart": _restart,
        "pause": _pause,
        "resume": _resume,
    }.items()},
}
