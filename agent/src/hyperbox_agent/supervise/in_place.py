"""The stage of a program that runs from the very folder that is edited: nothing is applied."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hyperbox_agent.core.entries import Kind
from hyperbox_agent.supervise.supervisor import Supervisor
from hyperbox_agent.supervise.transaction import Work, changed_files

Seen = tuple[int, int, int, int]
"""Device, inode, size and mtime in ns: what tells that a file is still the one that was read."""


class InPlace:
    """Gates the files where they are, and says whether they still are what was gated."""

    shares_tree = True

    def __init__(self, root: str) -> None:
        self._root = root
        self._seen: dict[str, Seen | None] = {}

    def check_base(self, work: Work) -> None:
        """The tree is the source itself: whoever sent the changes saw them in it."""

    async def prepare(self, work: Work) -> None:
        """Note which files the gate is going to read. Of a first start it reads none, and what the
        starting program writes itself must not take that back, time and again."""
        self._seen = {} if work.first else {
            change.path: _look(os.path.join(self._root, change.path))
            for change in work.changes
            if Kind.DIR not in (change.old and change.old.kind, change.new and change.new.kind)}

    def gate_files(self, work: Work) -> Sequence[tuple[str, str]]:
        """The changed files themselves."""
        return [(path, os.path.join(self._root, path)) for path in changed_files(work.changes)]

    def untouched(self, work: Work) -> bool:
        """Whether every changed path is still what it was when the gate read it."""
        return all(_look(os.path.join(self._root, path)) == seen
                   for path, seen in self._seen.items())

    async def apply(self, work: Work, supervisor: Supervisor) -> str:
        """The new version runs from the folder itself."""
        return self._root

    async def undo(self, work: Work, supervisor: Supervisor) -> None:
        """The source is never written: a broken edit stays where its author made it."""

    def commit(self, work: Work) -> None:
        """The session's archive remembers what went live."""

    def discard(self, work: Work) -> None:
        """Nothing was staged."""
        self._seen = {}


def _look(path: str) -> Seen | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
