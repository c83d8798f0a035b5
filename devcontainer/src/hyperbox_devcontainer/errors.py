"""The workstation's errors: one base, few subclasses, with the fields that a screen needs.

No imports here: every verb of the command line loads this module, also those that must be quick.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class WorkstationError(Exception):
    """Base of every error that the workstation side raises on purpose."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None,
                 column: int | None = None, key: str | None = None,
                 hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.key = key
        self.hint = hint

    def as_json(self) -> dict[str, Any]:
        """The fields that are set, as ``--json`` output and the verb socket carry them."""
        fields = {name: getattr(self, name) for name in ("file", "line", "column", "key", "hint")}
        return {"message": self.message,
                **{name: value for name, value in fields.items() if value is not None}}


class InputError(WorkstationError):
    """What the user gave is wrong (a folder, an argument); nothing was changed."""


class ConfigError(InputError):
    """The configuration is wrong. Its own fields are those of the first of ``problems``."""

    def __init__(self, problems: Sequence[WorkstationError]) -> None:
        first = problems[0]
        super().__init__(first.message, file=first.file, line=first.line, column=first.column,
                         key=first.key, hint=first.hint)
        self.problems = tuple(problems)


class PathsError(WorkstationError):
    """A folder of ours is not as it must be (owner, rights, a link in its place)."""


class HistoryError(WorkstationError):
    """The history can't be read or written."""


class VerbError(WorkstationError):
    """A verb was refused or failed in the session; ``kind`` names the class of the first error."""

    def __init__(self, message: str, *, kind: str = "VerbError", file: str | None = None,
                 line: int | None = None, column: int | None = None, key: str | None = None,
                 hint: str | None = None) -> None:
        super().__init__(message, file=file, line=line, column=column, key=key, hint=hint)
        self.kind = kind


class NoSessionError(WorkstationError):
    """No session of this project is up."""


class SessionBusyError(WorkstationError):
    """A session of this project is up already; ``pid`` is its process where that is known."""

    def __init__(self, message: str, *, pid: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


class SilentSessionError(WorkstationError):
    """The session's process is there but did not answer within the time limit."""

    def __init__(self, message: str, *, pid: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


class TargetError(WorkstationError):
    """A target can't do what was asked of it; ``target`` is its name."""

    def __init__(self, message: str, *, target: str, file: str | None = None,
                 hint: str | None = None) -> None:
        super().__init__(message, file=file, hint=hint)
        self.target = target


class TargetTimeoutError(TargetError):
    """A target did not do it within the time limit."""


class HostileTargetError(TargetError):
    """A target sent what no honest one sends: the session with it ends."""
