"""The generations of one home: what the tree holds now, and how it came to that.

    <home>/snapshot            a record that makes the whole tree of nothing, at some seq
    <home>/generations/<seq>   a record each; those after the snapshot's seq are replayed on
                               loading, those before it only lead back

A generation is *in* the history from the moment in which its record's file has its name there.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hyperbox_agent.core.entries import Change, Entry
from hyperbox_agent.core.plan import after, inverse
from hyperbox_agent.errors import ApplyError
from hyperbox_agent.home import make_private
from hyperbox_agent.store import record as records
from hyperbox_agent.store.collector import collector_paused
from hyperbox_agent.store.ops import Ops, write_all
from hyperbox_agent.store.record import Record

_REPLAY = 1000
"""So many changes, or a quarter of the tree, are replayed on loading before a snapshot is made."""


@dataclass(frozen=True, slots=True)
class _Kept:
    seq: int
    number: int
    before: int


class History:
    """In memory after ``load``; the files are the truth. One writer."""

    def __init__(self, home: str, ops: Ops | None = None) -> None:
        """The history below ``home``, made if it is not there. Raises OSError."""
        self._ops = ops or Ops()
        self._folder = os.path.join(home, "generations")
        self._snapshot = os.path.join(home, "snapshot")
        self._kept: deque[_Kept] = deque()
        self._snapshot_seq = 0
        self._replay = 0
        self.manifest: dict[str, Entry] = {}
        """The tree as of the last record."""
        self.stamps: dict[str, int] = {}
        """What ``stat`` said of each file when it was put there, mixed into one number."""
        self.replaced: dict[str, int] = {}
        """The stamps that the newest record replaced, 0 for none; empty after loading."""
        self.seq = 0
        self.number = 0
        """The generation that the tree holds; 0: none yet."""
        make_private(self._folder)

    def load(self) -> None:
        """Read the files. Raises StoreError when one is damaged: the tree is not known then."""
        with collector_paused():
            self._load()

    def path_of(self, seq: int) -> str:
        """Where the record ``seq`` is or will be."""
        return os.path.join(self._folder, f"{seq:010d}")

    # -- going on -------------------------------------------------------------------------------

    def accept(self, record: Record, path: str) -> None:
        """The record, written at ``path`` of the same filesystem, becomes the newest."""
        self._ops.rename(path, self.path_of(record.seq))
        self._kept.append(_Kept(record.seq, record.number, record.before))
        self.replaced = {change.path: self.stamps.get(change.path, 0) for change in record.changes}
        self._replay_one(record)

    def drop_newest(self, record: Record) -> None:
        """The newest record was undone: as if it had never been. Raises ApplyError for another."""
        if record.seq != self.seq or record.seq <= self._snapshot_seq:
            raise ApplyError(f"generation {record.number} is not the newest any more")
        with contextlib.suppress(FileNotFoundError):
            self._ops.unlink(self.path_of(record.seq))
        if self._kept and self._kept[-1].seq == record.seq:
            self._kept.pop()
        for change in record.changes:
            self._set(change.path, change.old)
            if change.old is not None:
                self.stamps[change.path] = self.replaced.get(change.path, 0)
        self.number = record.before
        self._replay -= len(record.changes)

    def restamp(self, stamps: Mapping[str, int]) -> None:
        """Files were found to be as recorded although their stamps differ (in memory only)."""
        self.stamps.update(stamps)

    def doubt(self) -> None:
        """No stamp is to be believed: what stands there has to be read."""
        self.stamps = {}

    def write(self, record: Record, path: str) -> None:
        """Write the record's file at ``path``. ``flush`` has it survive a power cut."""
        fd = self._ops.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(self._ops, fd, records.encode(record))
        finally:
            os.close(fd)

    def flush(self, seq: int) -> None:
        """Return when the record ``seq`` is on the disk; nothing where it is kept no more.

        Not on a save's way: ext4 writes everything else that is new with it, which takes
        milliseconds on an idle disk and a tenth of a second on a busy one.
        """
        with contextlib.suppress(FileNotFoundError):
            self._flush(self.path_of(seq))

    def _flush(self, path: str) -> None:
        fd = self._ops.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._ops.fdatasync(fd)
        finally:
            os.close(fd)

    # -- going back -----------------------------------------------------------------------------

    def numbers(self) -> tuple[int, ...]:
        """The generations that ``at`` can give, oldest first; the last is the tree's own."""
        found: dict[int, None] = {}
        for kept in self._kept:
            for number in (kept.before, kept.number):
                found.pop(number, None)
                found[number] = None
        found.pop(0, None)
        return tuple(found)

    def at(self, number: int) -> dict[str, Entry]:
        """The tree as it was at generation ``number``. Raises ApplyError when it is not kept."""
        tree = dict(self.manifest)
        if number == self.number:
            return tree
        for kept in reversed(self._kept):
            tree = after(tree, inverse(self.record(kept.seq).changes))
            if kept.before == number:
                return tree
        raise ApplyError(f"generation {number} is not kept any more",
                         hint=f"kept: {', '.join(map(str, self.numbers())) or 'none'}")

    def record(self, seq: int) -> Record:
        """A kept record. Raises StoreError, FileNotFoundError."""
        return records.read(self.path_of(seq))

    def old_contents(self) -> Iterable[tuple[int, Iterable[tuple[bytes, int]]]]:
        """Newest record first: its seq, and digest and size of what it took out of the tree."""
        for kept in list(reversed(self._kept)):
            changes = self.record(kept.seq).changes
            yield kept.seq, [(change.old.digest, change.old.size) for change in changes
                             if change.old is not None and change.old.digest]

    def trim(self, oldest_seq: int) -> int:
        """Forget the records before ``oldest_seq``; how many went. Makes a snapshot if needed."""
        if any(kept.seq > self._snapshot_seq for kept in self._kept if kept.seq < oldest_seq):
            self.snapshot()
        gone = 0
        while self._kept and self._kept[0].seq < oldest_seq:
            self._ops.unlink(self.path_of(self._kept.popleft().seq))
            gone += 1
        return gone

    def oldest_of(self, count: int) -> int:
        """The seq of the oldest of the newest ``count`` records."""
        if not self._kept or count <= 0:
            return self.seq + 1
        return self._kept[max(0, len(self._kept) - count)].seq

    def is_long(self, count: int) -> bool:
        """Whether more than ``count`` records are kept and it is worth the while to forget some.

        Forgetting one that the snapshot does not hold yet means writing a snapshot, so those gather
        until they are as many again.
        """
        old = len(self._kept) - count
        return old > 0 and (self._kept[old - 1].seq <= self._snapshot_seq or old >= count)

    def compact(self) -> None:
        """Make a snapshot if loading would replay much."""
        if self._replay > max(_REPLAY, len(self.manifest) // 4):
            self.snapshot()

    def snapshot(self) -> None:
        """Write the whole tree down, so that no record up to now is needed to know it."""
        everything = tuple(Change(path, None, entry) for path, entry in self.manifest.items())
        whole = Record(self.seq, self.number, 0, everything, self.stamps)
        temporary = self._snapshot + ".new"
        self.write(whole, temporary)
        # Older records may go once it is there, so it must not be a name without content.
        self._flush(temporary)
        self._ops.rename(temporary, self._snapshot)
        self._snapshot_seq = self.seq
        self._replay = 0

    def forget(self) -> None:
        """The tree is not known any more: begin anew, with numbers of records going on."""
        self.manifest, self.stamps, self.number, self._replay = {}, {}, 0, 0
        self.snapshot()
        self.trim(self.seq + 1)

    # -- within ---------------------------------------------------------------------------------

    def _load(self) -> None:
        self._kept.clear()
        self.replaced = {}
        self.manifest, self.stamps, self._replay = {}, {}, 0
        self._snapshot_seq = self.seq = self.number = 0
        with contextlib.suppress(FileNotFoundError):
            whole, self.manifest = records.read_tree(self._snapshot)
            self.stamps = dict(whole.stamps)
            self.seq = self._snapshot_seq = whole.seq
            self.number = whole.number
        for name in sorted(os.listdir(self._folder)):
            path = os.path.join(self._folder, name)
            kept = _Kept(*records.read_numbers(path))
            self._kept.append(kept)
            if kept.seq > self._snapshot_seq:
                self._replay_one(records.read(path))

    def _replay_one(self, record: Record) -> None:
        for change in record.changes:
            self._set(change.path, change.new)
        self.stamps.update(record.stamps)
        self.seq, self.number = record.seq, record.number
        self._replay += len(record.changes)

    def _set(self, path: str, entry: Entry | None) -> None:
        if entry is None:
            self.manifest.pop(path, None)
            self.stamps.pop(path, None)
        else:
            self.manifest[path] = entry
