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


class MissingBlobsError(StoreError):
    """Content that was thought to be here is not: send ``digests`` and try again."""

    def __init__(self, message: str, *, digests: tuple[bytes, ...] = (), file: str | None = None,
                 line: int | None = None, key: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, file=file, line=line, key=key, hint=hint)
        self.digests = digests


class ApplyError(AgentError):
    """A batch can't be applied; nothing in the tree was changed."""


class TreeInUseError(ApplyError):
    """Another agent has the tree."""


class BaseChangedError(AgentError):
    """A batch is against another generation than the target's tree holds: learn anew what is there.

    Nothing was staged.
    """

    def __init__(self, message: str, *, base: int = 0, holds: int = 0, file: str | None = None,
                 line: int | None = None, key: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, file=file, line=line, key=key, hint=hint)
        self.base = base
        """What the batch is against."""
        self.holds = holds
        """What stands in the tree."""


class NoSpaceError(ApplyError):
    """The target's filesystem can't take the batch: bytes, inodes, quota, read-only."""

    def __init__(self, message: str, *, filesystem: str = "", need: int = 0, have: int = 0,
                 unit: str = "", file: str | None = None, line: int | None = None,
                 key: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, file=file, line=line, key=key, hint=hint)
        self.filesystem = filesystem
        """Its mount point."""
        self.need = need
        self.have = have
        self.unit = unit
        """Of what: see ``core.room``."""


class ProtocolError(AgentError):
    """A peer sent something that is not our protocol or not our version."""


class VersionError(ProtocolError):
    """The peer is a HyperBox of another version; ``ours`` and ``theirs`` name both."""

    def __init__(self, message: str, *, ours: str = "", theirs: str = "",
                 hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.ours = ours
        self.theirs = theirs


class FaultError(AgentError):
    """The peer failed in a way that nobody foresaw; ``details`` is its traceback."""

    def __init__(self, message: str, *, details: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.details = details


class LinkLostError(AgentError):
    """The connection to the peer ended."""


class LinkTimeoutError(AgentError):
    """The peer did not answer within the time limit."""


class ProgramError(AgentError):
    """The program can't be started or ended before it was ready."""


class ProgramMissingError(ProgramError):
    """There is no such program: what a shell calls 127."""


class ProgramForbiddenError(ProgramError):
    """The program may not be executed: what a shell calls 126."""


class PortError(AgentError):
    """The port can't be held (taken by another process, not permitted)."""


class PortTakenError(PortError):
    """Another program has the port; ``pid`` and ``program`` name it where it can be seen."""

    def __init__(self, message: str, *, pid: int | None, program: str | None,
                 hint: str | None = None) -> None:
        super().__init__(message, key="port", hint=hint)
        self.pid = pid
        self.program = program
