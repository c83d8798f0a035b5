"""The verbs that are one question and one answer, as a table."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from hyperbox_devcontainer.errors import VerbError
from hyperbox_devcontainer.verbs.session import SessionLike

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


def _word(args: Args, key: str) -> str | None:
    value = args.get(key)
    if value is not None and not isinstance(value, str):
        raise VerbError(f"{key} must be text", key=key)
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
    return await session.restart(_word(args, "rung"))


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
