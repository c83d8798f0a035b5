"""Staging: every byte of a batch lies verified beside the tree before anything in the tree moves.

    <home>/stage/<seq>/<i>      the file, link or whole folder that step *i* will place
    <home>/stage/<seq>/record   the generation's record with its moves: renamed to <home>/journal,
                                it is the signal to go
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hyperbox_agent.apply.ahead import Ahead
from hyperbox_agent.apply.folders import Folders
from hyperbox_agent.apply.moves import FOLDER_MODE, Move
from hyperbox_agent.apply.writing import BLOCK, create, fill, not_announced, verify
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.plan import Op
from hyperbox_agent.errors import ApplyError, MissingBlobsError
from hyperbox_agent.store.born import birth
from hyperbox_agent.store.ops import Ops, remove_tree, write_all
from hyperbox_agent.store.record import Record, stamp, stamp_of
from hyperbox_agent.store.space import check_room, typed

_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}
_RECORD = 256
"""The record's share of one change, generously."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A batch that is ready. Nothing in the tree has moved."""

    seq: int
    number: int
    base: int
    """The seq of the record that the tree stood at."""
    changes: tuple[Change, ...]
    moves: tuple[Move, ...]
    record: Record = field(repr=False)
    places: Mapping[str, str] = field(repr=False, default_factory=dict)
    """Absolute path of the staged file by its path in the tree."""
    bytes: int = 0
    """Written while staging."""

    def file(self, path: str) -> str | None:
        """Where the new content of ``path`` can be read now; None: it is not in this batch."""
        return self.places.get(path)


_Slot = tuple[str, str, str, bool, bool]
"""One file to be written: its path in the tree; folder and name below the stage; executable;
whether it replaces a file. (A tuple: 50,000 of them are made at once.)"""


class Stager:
    """Takes the contents of one batch as they come, in any order.

    ``needs`` are the digests to ``add``; what is here already is copied by ``finish``. An error
    leaves nothing staged.
    """

    def __init__(self, stage: str, changes: Sequence[Change], moves: Sequence[Move], *, ops: Ops,
                 local: Callable[[bytes], Iterable[bytes] | None],
                 seal: Callable[[Stager], Staged], ahead: Ahead) -> None:
        """Make the folders and links in ``stage``. Raises NoSpaceError, ApplyError.

        ``local`` gives a content that is on this machine already, or None. The last piece comes
        only when the whole was verified. ``seal`` makes the finished stage a batch. ``ahead`` is
        what was written before the batch was known.
        """
        self._stage = stage
        self._changes = tuple(changes)
        self._moves = moves
        self._ops = ops
        self._local = local
        self._seal = seal
        self._slots: dict[bytes, list[_Slot]] = {}
        self.stamps = ahead.held(self._changes, moves)
        self.places: dict[str, str] = {}
        self.bytes = 0
        self._folders: Folders | None = None
        self._lay_out(ahead)

    @property
    def needs(self) -> tuple[bytes, ...]:
        """Digests that are still to come, in the order of their paths."""
        return tuple(self._slots)

    def add(self, digest: bytes, data: bytes | Iterable[bytes]) -> None:
        """One content. Raises StoreError when it is not what ``digest`` says, NoSpaceError.

        A content that nothing in the batch waits for is ignored.
        """
        slots = self._slots.get(digest)
        if slots is None:
            return
        try:
            if isinstance(data, bytes):
                self._add_bytes(digest, data, slots)
            else:
                self._add_pieces(digest, data, slots)
        except OSError as error:
            self.abandon()
            raise typed(error, os.path.dirname(self._stage), "staging") from error
        except BaseException:
            self.abandon()
            raise
        del self._slots[digest]

    def finish(self) -> Staged:
        """Copy what is here already, and be done.

        Raises MissingBlobsError for what is not anywhere, NoSpaceError.
        """
        missing: tuple[bytes, ...] = ()
        path = None
        for digest in self.needs:
            pieces = self._local(digest)
            path = self._slots[digest][0][0]
            try:
                if pieces is None:
                    raise MissingBlobsError("", digests=(digest,))
                self.add(digest, pieces)
            except MissingBlobsError as error:
                # Name all that is missing at once; the rest need not be copied for that.
                missing = (*error.digests, *(other for other in self.needs
                                             if other != digest and self._local(other) is None))
                break
        if missing:
            self.abandon()
            raise MissingBlobsError(f"{len(missing)} contents are not here, that of {path!r} "
                                    "among them", digests=missing, file=path)
        self._close()
        return self._seal(self)

    def abandon(self) -> None:
        """Remove what was staged."""
        self._close()
        try:
            remove_tree(self._ops, self._stage)
        except OSError as error:
            raise typed(error, os.path.dirname(self._stage), "cleaning the stage") from error

    # -- layout ---------------------------------------------------------------------------------

    def _lay_out(self, ahead: Ahead) -> None:
        size, links, folders = self._sort_out()
        record = _RECORD * len(self._changes)
        check_room(os.path.dirname(self._stage), size + record + BLOCK * len(folders),
                   len(self.places) + 4)
        try:
            self._ops.mkdir(self._stage, 0o700)
            self._folders = Folders(self._stage)
            there = ahead.hand_over(self._moves, self.stamps, {path for path, _ in folders},
                                    self._stage)
            for path, place in folders:
                if path in there:
                    continue
                parent, name = self._folders.parent(place)
                self._ops.mkdir(name, FOLDER_MODE, dir_fd=parent)
            for place, entry in links:
                self._link(self._folders, place, entry)
        except ApplyError:
            self.abandon()
            raise
        except OSError as error:
            self.abandon()
            raise typed(error, os.path.dirname(self._stage), "staging") from error

    def _link(self, folders: Folders, place: str, entry: Entry) -> None:
        parent, name = folders.parent(place)
        try:
            self._ops.symlink(entry.target, name, dir_fd=parent)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise ApplyError(f"the link {entry.path!r} can't be made: the target's file system "
                             "has none", file=entry.path, hint="ignore it") from error
        self.stamps[entry.path] = stamp(os.stat(name, dir_fd=parent, follow_symlinks=False),
                                        birth(name, parent))

    def _sort_out(self) -> tuple[int, list[tuple[str, Entry]], list[tuple[str, str]]]:
        """Which links and folders are staged, and where; the bytes of the files that are still to
        be written; fills their slots."""
        single = {move.path: move for move in self._moves if move.op is Op.PLACE}
        trees = {path: move for path, move in single.items() if move.folder}
        size = 0
        links: list[tuple[str, Entry]] = []
        folders: list[tuple[str, str]] = []
        for change in self._changes:
            entry = change.new
            place = None if entry is None else _place(change.path, single, trees)
            if entry is None or place is None:
                continue
            self.places[change.path] = f"{self._stage}/{place}"
            if entry.kind is Kind.DIR:
                folders.append((entry.path, place))
            elif entry.kind is Kind.LINK:
                links.append((place, entry))
            elif entry.path not in self.stamps:
                folder, _, name = place.rpartition("/")
                replaces = change.old is not None and change.old.kind is Kind.FILE
                slot = (change.path, folder, name, entry.executable, replaces)
                self._slots.setdefault(entry.digest, []).append(slot)
                size += _rounded(entry.size)
        return size, links, folders

    # -- writing --------------------------------------------------------------------------------

    def _add_bytes(self, digest: bytes, data: bytes, slots: Iterable[_Slot]) -> None:
        verify(_path_of(slots), digest, data)
        for slot in slots:
            fd = self._create(slot)
            try:
                fill(self._ops, fd, data)
                self._done(fd, slot)
            finally:
                os.close(fd)
            self.bytes += len(data)

    def _add_pieces(self, digest: bytes, pieces: Iterable[bytes], slots: list[_Slot]) -> None:
        hasher = hashlib.sha256()
        fds: list[int] = []
        try:
            for slot in slots:
                fds.append(self._create(slot))  # noqa: PERF401 (those opened are closed below)
            for piece in pieces:
                hasher.update(piece)
                for fd in fds:
                    write_all(self._ops, fd, piece)
                    self.bytes += len(piece)
            if hasher.digest() != digest:
                raise not_announced(_path_of(slots))
            for fd, slot in zip(fds, slots, strict=True):
                self._done(fd, slot)
        finally:
            for fd in fds:
                os.close(fd)

    def _create(self, slot: _Slot) -> int:
        assert self._folders is not None
        _, folder, name, executable, _ = slot
        return create(self._ops, name, self._folders.open(folder), executable=executable)

    def _done(self, fd: int, slot: _Slot) -> None:
        if slot[4]:
            self._ops.start_writeback(fd)
        self.stamps[slot[0]] = stamp_of(fd)

    def _close(self) -> None:
        if self._folders is not None:
            self._folders.close()
            self._folders = None


def _path_of(slots: Iterable[_Slot]) -> str:
    return next(iter(slots))[0]


def _place(path: str, single: Mapping[str, Move], trees: Mapping[str, Move]) -> str | None:
    """Where the entry of ``path`` is staged, below the stage; None: it has no place there."""
    move = single.get(path)
    if move is not None:
        return move.source.rpartition("/")[2]
    at = path.find("/") if trees else -1
    while at > 0:
        tree = trees.get(path[:at])
        if tree is not None:
            return tree.source.rpartition("/")[2] + path[at:]
        at = path.find("/", at + 1)
    return None


def _rounded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK
