"""What the verbs need of a session. ``session/`` provides it; tests bring a double.

``session/`` gives two functions as well::

    async def open_session(config: Config, *, on_event, clock) -> Session
        # Events come from its first moment on. Where it raises or is cancelled nothing is left.
    def down(project: Project, *, timeout: float) -> bool
        # Blocking, without a session: end what a lost one left; whether there was anything.

All calls of a session are made on the event loop. Results are plain JSON objects, so that they can
cross the socket as they are. Errors are typed (``AgentError``, ``WorkstationError``) and cross it
too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A command to run beside the program, in its folder and environment."""

    argv: Sequence[str]
    tty: bool = False
    """Give it a terminal of its own: stdout and stderr are one then."""
    stdin: bool = False
    """Keep its standard input open; else it reads the end at once."""
    rows: int = 24
    columns: int = 80
    env: Mapping[str, str] = field(default_factory=dict)
    """Additions, such as TERM."""


class ByteChannel(Protocol):
    """A running command of ``exec``."""

    async def read(self) -> tuple[int, bytes] | None:
        """Some output with its stream (1 or 2), or None when all output has been read."""
        ...

    async def write(self, data: bytes) -> None:
        """Bytes for standard input; empty: its end. Returns when more may be sent."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """The size of the person's terminal changed."""
        ...

    async def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        ...

    async def status(self) -> int:
        """Wait for the end: the exit status, 128 + n after signal n."""
        ...

    async def close(self) -> None:
        """End the command if it still runs, and let go of everything."""
        ...


class SessionLike(Protocol):
    """One project on its targets, being kept live."""

    def status(self) -> dict[str, Any]:
        """A project of ``status --json``: ``{"name", "path", "targets": [...]}``. Never waits."""
        ...

    def config(self) -> dict[str, Any]:
        """The configuration that the session runs with."""
        ...

    def history(self, limit: int) -> list[dict[str, Any]]:
        """The last generations as events, newest first."""
        ...

    async def flush(self, timeout: float) -> dict[str, Any]:
        """Return when every save made before the call is committed or rolled back.

        ``{"ms", "targets": [{"name", "number", "verdict", "serving", "error"}]}``, where number,
        verdict and error are those of the newest generation (verdict None: no generation yet).
        Raises a typed error that names the target where the limit passed or the target is gone.
        """
        ...

    async def rollback(self, number: int | None) -> dict[str, Any]:
        """Make an older generation live; None: the one before the live one.

        Returns the generation event of it. Raises when there is no such generation.
        """
        ...

    async def restart(self, rung: str | None) -> dict[str, Any]:
        """Restart the program by ``rung`` (None: the cheapest). Returns the generation event."""
        ...

    async def pause(self) -> dict[str, Any]:
        """Stop taking saves until ``resume``; the program goes on. Returns the status."""
        ...

    async def resume(self) -> dict[str, Any]:
        """Take saves again, those made meanwhile first. Returns the status."""
        ...

    async def exec(self, request: ExecRequest) -> ByteChannel:
        """Start a command beside the program."""
        ...

    async def feed(self, data: bytes) -> None:
        """Bytes for the program's standard input (``[app] stdin``); empty: its end."""
        ...

    async def wait(self) -> None:
        """Return when the session has ended by itself; raises the error that ended it.

        Cancelling this changes nothing.
        """
        ...

    async def stop(self, *, fast: bool = False) -> None:
        """End everything that the session started, agent included; returns when nothing is left.

        May be called again with ``fast`` while it runs: then nothing is waited for any more.
        """
        ...

    async def detach(self) -> None:
        """Let go: agent and program go on without this process."""
        ...
