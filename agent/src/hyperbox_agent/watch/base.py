"""The seam between what notices changes and what reads them.

A watcher says where something may have happened; it never says what is there now. Its hints are
allowed to be too many and too coarse, never too few: where it can't know, it says ``LOST``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hyperbox_agent.core.entries import Change, Kind, Manifest


class What(Enum):
    """What a hint says about its path."""

    WRITTEN = "written"
    """A file was closed after writing."""
    MOVED_IN = "moved in"
    MOVED_OUT = "moved out"
    CREATED = "created"
    """A folder, a link, or a file that came into being without being written here."""
    DELETED = "deleted"
    ATTRIB = "attrib"
    """Mode, owner, times or number of links."""
    CHANGED = "changed"
    """Of unknown kind. On a folder: look at its listing, not below it."""
    LOST = "lost"
    """Events were lost: look at everything below."""
    ROOT_GONE = "root gone"
    """The root is not there (moved, deleted, unmounted, or replaced by an empty folder)."""
    ROOT_BACK = "root back"
    """The root is there again, or another folder in its place; a ``LOST`` for it follows."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Something may have happened at ``path`` (relative to the root, "" is the root)."""

    path: str
    what: What
    at: float
    """Monotonic seconds when it was noticed."""
    is_dir: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that the user should know and can mend; nothing else suffers from it."""

    path: str
    message: str
    hint: str = ""
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How much the tree holds."""

    files: int
    bytes: int
    dirs: int
    ignored_dirs: int
    """As of the last listing of their folders."""
    special: int
    """Sockets, fifos and devices, which are passed over; as of the last listing too."""

    @classmethod
    def of(cls, manifest: Manifest, passed: Iterable[tuple[int, int]]) -> Counts:
        """Of a tree whose folders ``passed`` over so many ignored folders and special files."""
        sizes = [entry.size for entry in manifest.values() if entry.kind is Kind.FILE]
        dirs = sum(entry.kind is Kind.DIR for entry in manifest.values())
        passed = list(passed)
        return cls(len(sizes), sum(sizes), dirs, sum(folders for folders, _ in passed),
                   sum(special for _, special in passed))


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a full scan found."""

    counts: Counts
    hashed: int
    """Files that were read; all others were known from the cache."""
    unstable: frozenset[str]
    """Changed while they were read, so they are not in the manifest yet."""
    note: str | None = None
    """Something about the cache that is worth a line."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a look at hinted places found."""

    changes: tuple[Change, ...]
    """Ordered by path, content that is equal left out."""
    unstable: frozenset[str]
    """Changed while they were read: nothing is said of them, they are to be hinted again."""
    new_dirs: tuple[str, ...]
    """Folders to watch (watched ones among them: adding is harmless)."""
    gone_dirs: tuple[str, ...]
    rescanned: bool
    """A whole subtree was looked through, not only hinted paths."""


Sink = Callable[[list[Hint]], None]
"""Takes a watcher's hints, on the event loop. Must not call the watcher back."""


class Watcher(Protocol):
    """Tells a sink about changes directly inside chosen folders of one root.

    All calls are made on one event loop. Paths are relative to the root. After ``add`` of a folder
    that was not watched before comes a ``CHANGED`` hint for it: what happened between its listing
    and its watch is found by listing it again.
    """

    @property
    def name(self) -> str:
        """Which one it is: inotify, watchfiles, pyinotify, polling."""
        ...

    @property
    def prompt(self) -> bool:
        """Whether a folder is watched when ``add`` returns."""
        ...

    @property
    def problems(self) -> Mapping[str, Problem]:
        """What hinders it now, by a short key."""
        ...

    def start(self, dirs: Iterable[str]) -> None:
        """Begin to watch these folders; no ``CHANGED`` hints for them. Raises WatchError."""
        ...

    def add(self, path: str) -> None:
        """Watch one more folder. A folder that is not there (any more) is passed over."""
        ...

    def forget(self, path: str) -> None:
        """Stop watching one folder; unknown ones are passed over."""
        ...

    def catch_up(self) -> None:
        """Hand what the kernel has told already to the sink, where that costs no more than asking.

        Where events come by themselves only, or by looking, this does nothing.
        """
        ...

    def drain(self) -> None:
        """Hand all that has happened until now to the sink before returning."""
        ...

    def close(self) -> None:
        """Stop; no hint comes any more. May be called twice."""
        ...
