"""Files of a tree's first batch that come while its source is still being read.

    <home>/stage/ahead/<path>    the file at its path in the tree

They are verified and written as any staged file is; when the batch is known, what it has just so
becomes part of its stage by one rename for each entry at the top, and the rest is removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from hyperbox_agent.apply.folders import Folders
from hyperbox_agent.apply.moves import FOLDER_MODE, Move
from hyperbox_agent.apply.writing import BLOCK, create, fill, not_announced, verify
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.plan import Op, first_batch, parent_of
from hyperbox_agent.store.collector import collector_paused
from hyperbox_agent.store.ops import Ops, remove_tree
from hyperbox_agent.store.record import stamp_of
from hyperbox_agent.store.space import check_room, typed


class Ahead:
    """What came so far, until ``hand_over`` or ``close``; then it begins anew."""

    def __init__(self, folder: str, ops: Ops) -> None:
        """``folder`` is made with the first files."""
        self._folder = folder
        self._ops = ops
        self._held: dict[str, tuple[Entry, int]] = {}
        """Each file with its stamp."""
        self._made: dict[str, None] = {}
        """Folders, parents before children; "" is the first."""

    def add(self, files: Sequence[tuple[Entry, bytes | memoryview]]) -> None:
        """Verify and write some files, each with a path of its own. Raises StoreError,
        NoSpaceError, ApplyError, and then all that came is dropped: its room is needed."""
        try:
            check_room(os.path.dirname(self._folder),
                       sum(len(data) + BLOCK for _, data in files), 2 * len(files))
            self._begin()
            with Folders(self._folder) as folders:
                for entry, data in files:
                    self._add(folders, entry, data)
        except OSError as error:
            self.close()
            raise typed(error, os.path.dirname(self._folder), "staging") from error
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        if not self._made:
            remove_tree(self._ops, self._folder)
            self._ops.mkdir(self._folder, 0o700)
            self._made[""] = None

    def _add(self, folders: Folders, entry: Entry, data: bytes | memoryview) -> None:
        if entry.kind is not Kind.FILE:
            raise not_announced(entry.path)
        verify(entry.path, entry.digest, data)
        folder, _, name = entry.path.rpartition("/")
        if folder not in self._made:
            self._make(folders, folder)
        fd = create(self._ops, name, folders.open(folder), executable=entry.executable)
        try:
            fill(self._ops, fd, data)
            self._held[entry.path] = entry, stamp_of(fd)
        finally:
            os.close(fd)

    def _make(self, folders: Folders, folder: str) -> None:
        parent = parent_of(folder)
        if parent not in self._made:
            self._make(folders, parent)
        self._ops.mkdir(folder.rpartition("/")[2], FOLDER_MODE, dir_fd=folders.open(parent))
        self._made[folder] = None

    def complete(self, count: int, changes: Iterable[Change]) -> tuple[Change, ...]:
        """The whole batch: see ``first_batch``. Raises MissingBlobsError where not ``count`` files
        are here."""
        with collector_paused():
            files = {path: entry for path, (entry, _) in self._held.items()}
            return first_batch(files, count, changes)

    def held(self, changes: Sequence[Change], moves: Sequence[Move]) -> dict[str, int]:
        """The files of a batch that are here just as it has them, with their stamps.

        None are where it is no first batch, in which all that is new at the top is placed whole.
        """
        if any(move.op is not Op.PLACE or "/" in move.path for move in moves):
            return {}
        out: dict[str, int] = {}
        for change in changes:
            found, new = self._held.get(change.path), change.new
            if found is not None and new is not None and found[0].same(new):
                out[change.path] = found[1]
        return out

    def hand_over(self, moves: Sequence[Move], taken: Mapping[str, int],
                  wanted: AbstractSet[str], stage: str) -> frozenset[str]:
        """Move the files that are ``taken`` and the folders that are ``wanted`` to where ``moves``
        have them in the folder ``stage``; gives the folders, by their paths in the tree, that stand
        there then. Raises OSError, ApplyError."""
        there = frozenset[str]()
        if taken:
            with Folders(self._folder) as folders:
                self._weed_out(folders, taken, wanted)
            tops = {path.partition("/")[0] for path in (*self._held, *self._made)}
            for move in moves:
                if move.path in tops:
                    self._ops.rename(f"{self._folder}/{move.path}",
                                     f"{stage}/{move.source.rpartition('/')[2]}")
            there = frozenset(self._made)
        self.close()
        return there

    def _weed_out(self, folders: Folders, taken: Mapping[str, int],
                  wanted: AbstractSet[str]) -> None:
        """Remove what the batch has no more, or otherwise."""
        for path in [path for path in self._held if path not in taken]:
            parent, name = folders.parent(path)
            self._ops.unlink(name, dir_fd=parent)
            del self._held[path]
        for path in [path for path in reversed(self._made) if path and path not in wanted]:
            folders.forget(path)
            parent, name = folders.parent(path)
            self._ops.rmdir(name, dir_fd=parent)
            del self._made[path]

    def close(self) -> None:
        """Remove what is still here. Raises ApplyError."""
        begun = bool(self._made)
        self._held, self._made = {}, {}
        if not begun:
            return
        try:
            remove_tree(self._ops, self._folder)
        except OSError as error:
            raise typed(error, os.path.dirname(self._folder), "cleaning the stage") from error
