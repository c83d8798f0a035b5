"""Carries batches out on one tree, leads the newest one back, and picks up after a crash.

The order is what makes it safe: the record is on the disk, then it becomes the journal (the signal
to go), then the moves, then it becomes history. See README.md.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum

from hyperbox_agent.apply.carrier import Carrier
from hyperbox_agent.apply.folders import Folders
from hyperbox_agent.apply.journal import Journal, backward, leads_back, moves_of
from hyperbox_agent.apply.leftovers import Kept, Leftovers, put_away, sort_out
from hyperbox_agent.apply.moves import Move, undo_moves
from hyperbox_agent.apply.places import Places
from hyperbox_agent.apply.stage import Staged
from hyperbox_agent.errors import ApplyError
from hyperbox_agent.home import make_private
from hyperbox_agent.store.blobs import BlobStore
from hyperbox_agent.store.history import History
from hyperbox_agent.store.ops import Ops, remove_tree
from hyperbox_agent.store.record import Record
from hyperbox_agent.store.space import typed

_SPARE = 5000

Freeze = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Applied:
    """A batch that the tree holds now; it can be undone until it is committed."""

    seq: int
    number: int
    before: int
    """The generation that the tree held."""
    ms: float
    """How long the program was frozen for it, without freezing and thawing."""
    renames: int
    kept: tuple[Kept, ...] = ()
    """What the program had written where the batch wrote or removed."""
    left: tuple[str, ...] = ()
    """Paths that should have gone and stay, since something that is not ours is there."""


class Outcome(str, Enum):
    """What recovery had to do."""

    NOTHING = "nothing"
    FORWARD = "forward"
    """A batch had been begun and was finished: the tree is all-new."""
    BACK = "back"
    """An undoing had been begun and was finished: the tree is all-old."""
    LOST = "lost"
    """The home was damaged: nothing is known of the tree, a full push mends it."""


@dataclass(slots=True)
class _Open:
    """The newest batch while it can be undone."""

    record: Record
    moves: tuple[Move, ...]
    leftovers: Leftovers
    stamps: dict[str, int] = field(default_factory=dict)


class Batches:
    """One writer. ``broken`` means that only ``recover`` may come next."""

    def __init__(self, places: Places, root: Callable[[], Folders], *, store: BlobStore,
                 history: History, ops: Ops, umask: int | None) -> None:
        """``root`` opens the tree; ``umask`` is None where files have no modes."""
        self._places = places
        self._root = root
        self._store = store
        self._history = history
        self._ops = ops
        self._umask = umask
        self._open: _Open | None = None
        self.journal = Journal(places.home, history, ops)
        self.broken = True
        self.begun = False
        """Whether the batch that was last to be applied came to touch the tree."""
        self.spare: deque[bytes] = deque(maxlen=_SPARE)
        """Contents of undone and superseded batches: they often come back, so they outlive the
        next pruning."""

    # -- forward --------------------------------------------------------------------------------

    def apply(self, staged: Staged, freeze: Freeze) -> Applied:
        """See ``Tree.apply``."""
        record = staged.record
        self.begun = False
        try:
            ms, carrier = self._carry(record, staged.moves, self._places.staged_record(staged.seq),
                                      freeze)
            stamps = dict(self._history.replaced)
            left = sort_out(self._places.trash(staged.seq), staged.moves, record.changes, stamps)
        except OSError as error:
            raise typed(error, self._places.home,
                        f"applying generation {staged.number}") from error
        self._open = _Open(record, staged.moves, left, stamps)
        return Applied(staged.seq, staged.number, record.before, ms, carrier.renames,
                       self._named(staged.seq, left), tuple(carrier.left))

    def forget_copies(self, seq: int) -> None:
        """Of a batch that was not begun: the tree has all that was to be kept. Raises OSError."""
        remove_tree(self._ops, self._places.trash(seq))

    def commit(self, seq: int | None = None) -> bool:
        """The open batch, if it is ``seq``, stays. Whether there was one. Raises ApplyError."""
        opened = self._open
        if opened is None or seq not in (None, opened.record.seq):
            return False
        seq = opened.record.seq
        try:
            put_away(opened.leftovers, self._places.trash(seq), self._places.kept(seq),
                     self._store, self._ops)
            remove_tree(self._ops, self._places.stage(seq))
            self._history.flush(seq)
        except OSError as error:
            raise typed(error, self._places.home, "committing") from error
        self._open = None
        return True

    # -- back -----------------------------------------------------------------------------------

    def undo(self, applied: Applied, freeze: Freeze) -> Applied:
        """See ``Tree.undo``."""
        opened = self._open
        if opened is None or opened.record.seq != applied.seq:
            raise ApplyError(f"generation {applied.number} can't be undone any more: roll back")
        moves = undo_moves(opened.moves, opened.record.changes, self._places.has)
        back = backward(opened.record, moves)
        prepared = self.journal.path + ".new"
        try:
            self._history.write(back, prepared)
            ms, carrier = self._carry(back, moves, prepared, freeze)
            self._open = None
            kept = self._put_away_undone(opened)
        except OSError as error:
            raise typed(error, self._places.home,
                        f"undoing generation {applied.number}") from error
        return Applied(applied.seq, self._history.number, applied.number, ms, carrier.renames,
                       kept, tuple(carrier.left))

    # -- after a crash --------------------------------------------------------------------------

    def recover(self) -> Outcome:
        """Finish what was begun, clear away what was not. Raises StoreError, OSError."""
        self._open = None
        record = self.journal.load()
        outcome = Outcome.NOTHING if record is None else self._finish(record)
        self._sweep()
        self.broken = False
        return outcome

    def forget(self) -> None:
        """Nothing is known of the tree any more. Raises OSError."""
        self._open = None
        self.journal.remove()
        for name in ("stage", "trash"):
            remove_tree(self._ops, f"{self._places.home}/{name}")
        self._places.make()
        self.broken = False

    # -- within ---------------------------------------------------------------------------------

    def _carry(self, record: Record, moves: Sequence[Move], prepared: str, freeze: Freeze
               ) -> tuple[float, Carrier]:
        with self._root() as root:
            carrier = self._carrier(root, record.seq)
            carrier.keep_replaced(moves)
            with freeze():
                begun = time.perf_counter()
                self.begun = True
                self.journal.begin(prepared)
                self.broken = True
                try:
                    carrier.carry(moves)
                except OSError:
                    self._turn_back(record, moves, carrier)
                    raise
                ms = (time.perf_counter() - begun) * 1000
        self.journal.end(record)
        self.broken = False
        return ms, carrier

    def _carrier(self, root: Folders, seq: int) -> Carrier:
        trash = self._places.trash(seq)
        make_private(trash)
        return Carrier(root, self._places.home, os.path.relpath(trash, self._places.home),
                       self._ops, self._umask)

    def _turn_back(self, record: Record, moves: Sequence[Move], carrier: Carrier) -> None:
        """A move failed: lead back what was done, while the program is still frozen.

        When that fails too, or the moves were leading back already, the journal stays, and
        ``recover`` finishes what it says.
        """
        if leads_back(record):
            return
        carrier.carry(undo_moves(moves, record.changes, self._places.has))
        self.journal.remove()
        self.broken = False
        stamps = {change.path: self._history.stamps.get(change.path, 0)
                  for change in record.changes}
        self._put_away_undone(_Open(record, tuple(moves), Leftovers((), ()), stamps))

    def _put_away_undone(self, opened: _Open) -> tuple[Kept, ...]:
        """What an undone batch had brought, and what it had taken out and not put back."""
        seq, record = opened.record.seq, opened.record
        stage, trash = self._places.stage(seq), self._places.trash(seq)
        with contextlib.suppress(FileNotFoundError):
            self._ops.unlink(self._places.staged_record(seq))
        brought = sort_out(stage, opened.moves, backward(record, ()).changes, record.stamps)
        rest = sort_out(trash, opened.moves, record.changes, opened.stamps)
        for left, folder in ((brought, stage), (rest, trash)):
            put_away(left, folder, self._places.kept(seq), self._store, self._ops)
            self.spare.extend(digest for digest, _ in left.known)
        return self._named(seq, brought) + self._named(seq, rest)

    def _named(self, seq: int, left: Leftovers) -> tuple[Kept, ...]:
        return tuple(Kept(path, self._places.kept(seq, path)) for path, _ in left.foreign)

    def _finish(self, record: Record) -> Outcome:
        moves = moves_of(record)
        with self._root() as root:
            self._carrier(root, record.seq).carry(moves)
        self.journal.end(record)
        return Outcome.BACK if leads_back(record) else Outcome.FORWARD

    def _sweep(self) -> None:
        """What the dead one had staged goes; what it had taken out of the tree is put away."""
        for name in os.listdir(f"{self._places.home}/stage"):
            remove_tree(self._ops, f"{self._places.home}/stage/{name}")
        for name in os.listdir(f"{self._places.home}/trash"):
            if name.isdigit():
                self._sweep_trash(int(name))

    def _sweep_trash(self, seq: int) -> None:
        trash = self._places.trash(seq)
        try:
            record = self._history.record(seq)
        except FileNotFoundError:
            record = Record(seq, 0, 0, ())
            self._remove_second_names(trash)
        left = sort_out(trash, moves_of(record), record.changes, None)
        put_away(left, trash, self._places.kept(seq), self._store, self._ops)

    def _remove_second_names(self, trash: str) -> None:
        """Of a batch that was never begun, or was undone: the tree has these files itself."""
        for folder, _, names in os.walk(trash):
            for name in names:
                path = os.path.join(folder, name)
                if os.lstat(path).st_nlink > 1:
                    self._ops.unlink(path)
