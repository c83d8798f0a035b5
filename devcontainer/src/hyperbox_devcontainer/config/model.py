"""The configuration as the rest of the house reads it: plain frozen values with their origins."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from hyperbox_devcontainer.paths import Project

Command = tuple[str, ...] | str


class Origin(NamedTuple):
    """Where a value came from."""

    kind: str
    """``"default"``, ``"detection"``, ``"file"``, ``"environment"`` or ``"flag"``."""
    where: str = ""
    """``hyperbox.toml:12``, the variable, the flag, or what detection saw."""

    @property
    def word(self) -> str:
        """As ``config`` shows it."""
        if self.kind in ("file", "flag"):
            return self.where
        return f"{self.kind} ({self.where})" if self.where else self.kind


DEFAULT = Origin("default")


class App(NamedTuple):
    """The program."""

    name: str
    command: Command | None
    port: int | None
    host: str
    health: str | None
    env: Mapping[str, str]
    env_file: tuple[str, ...]
    cwd: str
    tty: bool
    stdin: bool | None
    """Whether `up` feeds the program; None: where `up` itself reads a terminal."""
    grace: float
    start_timeout: float


class Sync(NamedTuple):
    """What reaches a target, and how."""

    ignore: tuple[str, ...]
    include: tuple[str, ...]
    mode: str
    pull: tuple[str, ...]


class Reload(NamedTuple):
    """How a new version takes over."""

    rung: str
    overlap: bool | None
    drain: float
    ready: str | None
    ready_after: float
    notify: tuple[str, ...]
    pre: tuple[Command, ...]
    post: tuple[Command, ...]


class Target(NamedTuple):
    """Where the program runs."""

    name: str
    kind: str
    mode: str
    path: str | None
    """Mirrored: the absolute path of the tree, or None: one beside our own state."""


class Detected(NamedTuple):
    """What the language packs saw, as far as the workstation shows it."""

    pack: str
    why: str
    command: tuple[str, ...]
    port: int | None = None
    health: str | None = None
    ready: str | None = None
    framework: str | None = None
    notes: tuple[str, ...] = ()


class Config(NamedTuple):
    """One project, complete."""

    project: Project
    file: str | None
    """The configuration file, or None where there is none."""
    app: App
    sync: Sync
    reload: Reload
    target: Target
    """The one that this session is for."""
    targets: tuple[Target, ...]
    detected: Detected | None
    origins: Mapping[str, Origin] = MappingProxyType({})
    """By dotted key (``app.port``)."""

    def origin(self, key: str) -> Origin:
        """Where the value of a dotted key came from."""
        return self.origins.get(key, DEFAULT)

    def as_app_config(self) -> dict[str, Any]:
        """What ``AppConfig.from_json`` of the agent takes.

        A detected command is left out: the agent detects for itself, where the program runs.
        """
        said = self.origin("app.command").kind != "detection"
        return {
            "name": self.app.name,
            "command": _plain(self.app.command) if said else None,
            "port": self.app.port,
            "host": self.app.host,
            "health": self.app.health,
            "env": dict(self.app.env),
            "env_files": list(self.app.env_file),
            "cwd": self.app.cwd,
            "tty": self.app.tty,
            "grace": self.app.grace,
            "start_timeout": self.app.start_timeout,
            "rung": self.reload.rung,
            "overlap": self.reload.overlap,
            "drain": self.reload.drain,
            "ready": self.reload.ready,
            "ready_after": self.reload.ready_after,
            "notify": list(self.reload.notify),
            "pre": [_plain(command) for command in self.reload.pre],
            "post": [_plain(command) for command in self.reload.post],
        }

    def values(self) -> dict[str, Any]:
        """Every value by dotted key, as plain JSON, in the order of the docs."""
        out: dict[str, Any] = {}
        for section in ("app", "sync", "reload"):
            part = getattr(self, section)
            for name in part._fields:
                if (section, name) != ("app", "name"):
                    out[f"{section}.{name}"] = _json(getattr(part, name))
        for target in self.targets:
            for name in ("kind", "mode", "path"):
                out[f"target.{target.name}.{name}"] = getattr(target, name)
        return out


def _plain(command: Command | None) -> str | list[str] | None:
    return list(command) if isinstance(command, tuple) else command


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
