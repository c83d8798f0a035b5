"""Entries and manifests: what a tree holds, as plain values.

Paths are relative to a root, POSIX, as ``os.fsdecode`` gives them (bytes that are not UTF-8 are
kept by surrogate escapes), never empty, never absolute, without ``.`` or ``..`` parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """What an entry is. Sockets, fifos and devices are never entries."""

    FILE = "file"
    DIR = "dir"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a tree."""

    path: str
    kind: Kind
    mode: int = 0o644
    """Permission bits. Of a file only the owner's execute bit is content."""
    size: int = 0
    digest: bytes = b""
    """Raw SHA-256 of a file's bytes, or of a link's text; empty for a folder."""
    target: str = ""
    """A link's text."""

    @property
    def executable(self) -> bool:
        """Whether the owner may execute it."""
        return bool(self.mode & 0o100)

    def same(self, other: Entry) -> bool:
        """Equal as content: path, kind, executable bit, digest."""
        return self is other or (
            self.path == other.path
            and self.kind is other.kind
            and self.digest == other.digest
            and (self.kind is not Kind.FILE or self.executable == other.executable)
        )


Manifest = Mapping[str, Entry]
"""A whole tree by path. Every parent folder of an entry is an entry too."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one path between two manifests. ``old`` or ``new`` may be None, not both."""

    path: str
    old: Entry | None
    new: Entry | None
