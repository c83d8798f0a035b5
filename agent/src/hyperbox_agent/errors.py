"""The agent's errors: one base, few subclasses, with the fields that a screen needs."""

from __future__ import annotations


class AgentError(Exception):
    """Base of every error that the agent raises on purpose."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None,
                 key: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.key = key
        self.hint = hint


class WatchError(AgentError):
    """The source can't be watched or scanned (root gone, limits, rights)."""


class StoreError(AgentError):
    """The content store or a staged blob is not as it should be."""


class ApplyError(AgentError):
    """A batch can't be applied; nothing in the tree was changed."""


class NoSpaceError(ApplyError):
    """The target's filesystem has not enough bytes or inodes for the batch."""


class ProtocolError(AgentError):
    """A peer sent something that is not our protocol or not our version."""


class LinkLostError(AgentError):
    """The connection to the peer ended."""


class LinkTimeoutError(AgentError):
    """The peer did not answer within the time limit."""


class ProgramError(AgentError):
    """The program can't be started or ended before it was ready."""


class PortError(AgentError):
    """The port can't be held (taken by another process, not permitted)."""
