"""What the user (or detection) wants to have run: one program of a project, as plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from hyperbox_agent.errors import ProtocolError
from hyperbox_langpacks.base import Rung

ShellOrArgv = tuple[str, ...] | str
"""A command: a list of arguments, or the user's own words for ``/bin/sh -c``."""


@dataclass(frozen=True, slots=True)
class AppConfig:
    """One program and how it is reloaded. Everything has a default: detection fills the rest."""

    name: str = "app"
    command: ShellOrArgv | None = None
    port: int | None = None
    host: str = "localhost"
    """Where the port is held; ``localhost`` is both loopbacks."""
    health: str | None = None
    """A path that must answer 200–399; None: any complete answer to ``GET /``."""
    env: Mapping[str, str] = field(default_factory=dict)
    env_files: tuple[str, ...] = ()
    """Relative to the root."""
    cwd: str = ""
    """Relative to the root."""
    tty: bool = False
    """Give the program a terminal in place of pipes."""
    rung: Rung = Rung.REBUILD
    """The highest rung that may be taken."""
    overlap: bool | None = None
    """Whether two versions may run at once; None: with a port yes, without one no."""
    drain: float = 3.0
    """Seconds that the old version gets for what it is answering."""
    grace: float = 3.0
    """Seconds between SIGTERM and SIGKILL."""
    ready: str | None = None
    """A regular expression: the line of output that says that the program is ready."""
    ready_after: float = 1.0
    """Without a port and ``ready``: seconds alive that count as ready."""
    start_timeout: float = 30.0
    pre: tuple[ShellOrArgv, ...] = ()
    """Run before each start of a new version."""
    post: tuple[ShellOrArgv, ...] = ()
    """Run after each version that went live."""
    notify: tuple[str, ...] = ()
    """Files whose change is only told, not reloaded: patterns as in a ``.gitignore``."""

    @property
    def overlaps(self) -> bool:
        """Whether the old version serves while the new one starts."""
        return self.port is not None if self.overlap is None else self.overlap

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AppConfig:
        """The inverse of ``as_json``. Raises ProtocolError naming the key that is wrong."""
        known = {item.name for item in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in data.items():
            if key not in known:
                raise ProtocolError(f"unknown key {key!r} in the program's configuration", key=key)
            try:
                values[key] = _READERS.get(key, _same)(value)
            except (TypeError, ValueError, KeyError, re.error) as error:
                raise ProtocolError(f"bad value for {key!r}: {value!r} ({error})",
                                    key=key) from error
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """As it crosses the link."""
        out = {item.name: getattr(self, item.name) for item in fields(self)}
        out["rung"] = self.rung.word
        out["env"] = dict(self.env)
        out["command"] = _plain(self.command)
        for key in ("pre", "post"):
            out[key] = [_plain(command) for command in out[key]]
        for key in ("env_files", "notify"):
            out[key] = list(out[key])
        return out


def _same(value: Any) -> Any:
    return value


def _plain(command: ShellOrArgv | None) -> str | list[str] | None:
    return list(command) if isinstance(command, tuple) else command


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("text is wanted")
    return value


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError("a list of texts is wanted")
    return tuple(_text(item) for item in value)


def _command(value: Any) -> ShellOrArgv:
    if isinstance(value, str):
        return _text(value)
    argv = _texts(value)
    if not argv:
        raise ValueError("it is empty")
    return argv


def _optional_command(value: Any) -> ShellOrArgv | None:
    return None if value is None else _command(value)


def _commands(value: Any) -> tuple[ShellOrArgv, ...]:
    if isinstance(value, str):
        return (_text(value),)
    return tuple(_command(item) for item in value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:
        raise ValueError("seconds are wanted")
    return float(value)


def _port(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 65536:
        raise ValueError("a port number is wanted")
    return value


def _environment(value: Any) -> dict[str, str]:
    return {_text(key): _text(item) for key, item in dict(value).items()}


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false is wanted")
    return value


def _optional_flag(value: Any) -> bool | None:
    return None if value is None else _flag(value)


def _rung(value: Any) -> Rung:
    return value if isinstance(value, Rung) else Rung[_text(value).upper()]


def _pattern(value: Any) -> str | None:
    if value is not None:
        re.compile(_text(value))
    return None if value is None else str(value)


_READERS: Mapping[str, Any] = {
    "name": _text, "host": _text, "command": _optional_command, "port": _port,
    "health": _optional_text,
    "env": _environment, "env_files": _texts, "cwd": _text, "tty": _flag, "rung": _rung,
    "overlap": _optional_flag, "drain": _seconds, "grace": _seconds, "ready": _pattern,
    "ready_after": _seconds, "start_timeout": _seconds, "pre": _commands, "post": _commands,
    "notify": _texts,
}
