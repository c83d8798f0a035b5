"""The seam to where programs run. Everything above is written against these few calls.

Every call has a timeout, raises TargetError (TargetTimeoutError when the time is over) and never
anything foreign. A new kind of target implements ``Target`` and passes ``check_target``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hyperbox_agent.link.stream import ByteStream


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    status: int
    """Its exit status; 128 + n when signal n ended it, as shells say it."""
    out: bytes
    err: bytes


class Forward(Protocol):
    """A port of the target as an address of this machine."""

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect to, on loopback."""
        ...

    async def close(self) -> None:
        """Take it away. May be called again."""
        ...


class Target(Protocol):
    """A place where programs run."""

    @property
    def name(self) -> str:
        """As the user calls it."""
        ...

    @property
    def kind(self) -> str:
        """The word of the configuration: ``process``, ``memory``, ``container``, …"""
        ...

    @property
    def python(self) -> str | None:
        """An interpreter that is known to do for the agent, None: look for one."""
        ...

    async def open(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None,
                   survives: bool = False, timeout: float) -> ByteStream:
        """Start a program with its standard input and output as a stream, byte for byte.

        ``env`` is added to the target's environment. Standard error stays apart. When the stream
        is closed the program reads an end; one that then does not end itself is ended where the
        target can do that, unless it ``survives``.
        """
        ...

    async def run(self, argv: Sequence[str], *, input: bytes = b"",  # noqa: A002
                  env: Mapping[str, str] | None = None, timeout: float) -> Ran:
        """Run a command to its end. A status that is not 0 is a result, not an error.

        When the time is over, and when the caller is cancelled, the command is ended.
        """
        ...

    async def put(self, path: str, data: bytes, *, mode: int = 0o644, timeout: float) -> None:
        """Make ``path`` (absolute) a file with these bytes and exactly this mode.

        All or nothing: readers see the old file or the new one. Missing folders are made.
        """
        ...

    async def forward(self, port: int, *, timeout: float) -> Forward:
        """Make ``port`` of the target's loopback reachable from here."""
        ...

    async def close(self) -> None:
        """Let go of the target: streams and forwards end. Never fails, may be called again."""
        ...
