"""A mirrored tree: batches are staged beside it and applied to it as one unit.

What holds at any moment, and after ``recover`` also when this process was killed at any point:
the tree is all-old or all-new, and what the home says of it is true.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum

from hyperbox_agent.apply import home as homes
from hyperbox_agent.apply.carrier import Carrier
from hyperbox_agent.apply.contents import Contents
from hyperbox_agent.apply.damage import Damage, find_damage
from hyperbox_agent.apply.folders import Folders
from hyperbox_agent.apply.home import Marker, TreeState
from hyperbox_agent.apply.journal import Journal, backward, forward, leads_back, moves_of
from hyperbox_agent.apply.leftovers import Kept, Leftovers, put_away, sort_out
from hyperbox_agent.apply.moves import Move, moves_for, undo_moves
from hyperbox_agent.apply.probe import traits_of
from hyperbox_agent.apply.stage import Staged, Stager
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.plan import diff, order, validate
from hyperbox_agent.errors import ApplyError, MissingBlobsError, StoreError
from hyperbox_agent.store import pruning
from hyperbox_agent.store.blobs import BlobStore
from hyperbox_agent.store.collector import collector_paused
from hyperbox_agent.store.history import History
from hyperbox_agent.store.ops import Ops, remove_tree
from hyperbox_agent.store.record import Record
from hyperbox_agent.store.space import typed

_SPARE = 5000
"""Contents of undone and superseded batches that survive the next pruning: they often come back."""

Freeze = Callable[[], AbstractContextManager[object]]
Blobs = Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes | Iterable[bytes]]]


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


@dataclass(frozen=True, slots=True)
class Recovered:
    """The tree as ``recover`` leaves it."""

    outcome: Outcome
    number: int
    """The generation that the tree holds; 0: none that is known."""
    state: TreeState


@dataclass(slots=True)
class _Open:
    """The newest batch while it can be undone."""

    record: Record
    moves: tuple[Move, ...]
    leftovers: Leftovers
    stamps: dict[str, int] = field(default_factory=dict)


class Tree:
    """One tree and its home. One user at a time, across processes; not for several threads.

    Call ``recover`` first. Everything may raise ApplyError, and NoSpaceError where it writes.
    """

    def __init__(self, root: str, home: str | None = None, *, session: str = "",
                 ops: Ops | None = None, umask: int | None = None) -> None:
        """The tree at ``root`` with its home beside it. ``session`` is whom it is filled for.

        Raises ApplyError when the two are on different filesystems, or another agent has the home.
        """
        self.root = os.path.realpath(root)
        self.home = os.path.realpath(home or homes.default_home(root))
        self.session = session
        self._ops = ops or Ops()
        homes.prepare(self.root, self.home)
        self._lock = homes.lock(self.home)
        self._umask = homes.current_umask() if umask is None else umask
        try:
            self.store = BlobStore(os.path.join(self.home, "store"), self._ops)
            self._history = History(self.home, self._ops)
            for name in ("stage", "trash"):
                os.makedirs(os.path.join(self.home, name), mode=0o700, exist_ok=True)
            self.traits = traits_of(self.root, self.home, self._ops)
        except OSError as error:
            self.close()
            raise typed(error, self.home, "opening the home") from error
        except BaseException:
            self.close()
            raise
        self._journal = Journal(self.home, self._history, self._ops)
        self._contents = Contents(self.store, self.root)
        self._damaged: dict[str, Entry | None] = {}
        self._open: _Open | None = None
        self._spare: deque[bytes] = deque(maxlen=_SPARE)
        self._ready = False
        self._seq = 0
        self._marker = Marker.load(self.home)

    def close(self) -> None:
        """Let another agent have the home."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what is there --------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """The generation that the tree holds; 0: none."""
        return self._history.number

    def state(self) -> TreeState:
        """What the tree is to this session."""
        marker = self._marker
        if marker is None:
            return TreeState.RECREATED if self._history.number else TreeState.NEW
        if marker.session != self.session or not self._is_ours(os.stat(self.root)):
            return TreeState.RECREATED
        if self._history.manifest and not os.listdir(self.root):
            return TreeState.RECREATED
        return TreeState.KNOWN

    def manifest(self, *, verify: bool = True) -> dict[str, Entry]:
        """What stands in the tree of what was put there.

        With ``verify``, each entry is checked by ``stat`` first, and read where that differs: what
        the program changed is there as it is now, what it removed is not there.
        """
        if verify:
            self.damage()
        tree = dict(self._history.manifest)
        for path, now in self._damaged.items():
            if now is None:
                tree.pop(path, None)
            else:
                tree[path] = now
        return tree

    def damage(self) -> tuple[Damage, ...]:
        """What the program changed or removed of what was put there. The next batch mends it."""
        self._need_ready()
        try:
            with self._root_folders() as root:
                found, touched = find_damage(root, self._history.manifest, self._history.stamps,
                                             modes=self.traits.modes)
        except OSError as error:
            raise typed(error, self.root, "looking through the tree") from error
        self._history.restamp(touched)
        self._damaged = {item.path: item.now for item in found}
        return found

    def foreign(self, limit: int = 100) -> tuple[str, ...]:
        """Files in the tree that were not put there, ``limit`` at most; compiled code left out."""
        found: list[str] = []
        for folder, folders, names in os.walk(self.root):
            base = os.path.relpath(folder, self.root)
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(names):
                path = name if base == "." else f"{base}/{name}"
                if path not in self._history.manifest:
                    found.append(path)
                    if len(found) >= limit:
                        return tuple(found)
        return tuple(found)

    def content(self, digest: bytes) -> bytes | None:
        """A content that is here, verified: the base of a delta. None: it is not here."""
        pieces = self._contents.pieces(digest, self._present())
        try:
            return None if pieces is None else b"".join(pieces)
        except MissingBlobsError:
            return None

    # -- staging --------------------------------------------------------------------------------

    def missing(self, changes: Sequence[Change]) -> tuple[bytes, ...]:
        """The digests that must be sent for ``changes``: in no store and under no path here."""
        return self._contents.missing(self._relative(changes), self._present())

    def begin(self, number: int, changes: Sequence[Change]) -> Stager:
        """Begin to stage generation ``number``: ``add`` what ``missing`` named, then ``finish``.

        Raises ApplyError for a batch that is refused, NoSpaceError when it does not fit.
        """
        self._need_ready()
        if self._open is not None:
            self._commit(self._open)
        with collector_paused():
            return self._begin(number, changes)

    def _begin(self, number: int, changes: Sequence[Change]) -> Stager:
        batch = self._relative(changes)
        validate(batch, self._history.manifest, folding=self.traits.folding)
        self._seq = seq = max(self._seq, self._history.seq) + 1
        steps = order([self._repaired(change) for change in batch], folding=self.traits.folding)
        moves = moves_for(steps, f"stage/{seq}", f"trash/{seq}")
        present = self._present()
        base, before = self._history.seq, self._history.number

        def seal(stager: Stager) -> Staged:
            record = forward(seq, number, before, batch, stager.stamps, moves)
            try:
                self._history.write(record, self._staged_record(seq))
            except OSError as error:
                stager.abandon()
                raise typed(error, self.home, "staging") from error
            return Staged(seq, number, base, batch, moves, record, stager.places, stager.bytes)

        return Stager(os.path.join(self.home, "stage", str(seq)), batch, moves, ops=self._ops,
                      local=lambda digest: self._contents.pieces(digest, present),
                      seal=seal)

    def stage(self, number: int, changes: Sequence[Change], blobs: Blobs) -> Staged:
        """``begin``, ``add`` each of ``blobs``, ``finish``.

        Raises StoreError for a content that is not what its digest says, MissingBlobsError for one
        that is nowhere, NoSpaceError, ApplyError. Nothing is left staged then.
        """
        stager = self.begin(number, changes)
        pairs = blobs.items() if isinstance(blobs, Mapping) else blobs
        for digest, data in pairs:
            stager.add(digest, data)
        return stager.finish()

    def discard(self, staged: Staged) -> None:
        """The batch was superseded. What was sent for it stays in the store for a while."""
        for change in staged.changes:
            place = staged.file(change.path)
            if place and change.new is not None and change.new.kind is Kind.FILE:
                with contextlib.suppress(FileNotFoundError):
                    self.store.adopt(change.new.digest, place)
                    self._spare.append(change.new.digest)
        remove_tree(self._ops, os.path.join(self.home, "stage", str(staged.seq)))

    # -- applying -------------------------------------------------------------------------------

    def apply(self, staged: Staged, *, freeze: Freeze = contextlib.nullcontext) -> Applied:
        """Make the tree hold ``staged``; the program is inside ``freeze()`` for the renames.

        Raises ApplyError or NoSpaceError, and then the tree is as it was.
        """
        self._need_ready()
        if staged.base != self._history.seq:
            raise ApplyError(f"generation {staged.number} was staged against another version")
        record = staged.record
        try:
            ms, carrier = self._carry(record, staged.moves, self._staged_record(staged.seq), freeze)
            self._mark()
        except OSError as error:
            if self._ready and not self._journal.is_open():
                self._put_away_undone(_Open(record, staged.moves, Leftovers((), ())))
            raise typed(error, self.root, f"applying generation {staged.number}") from error
        self._contents.moved(record.changes)
        for change in record.changes:
            self._damaged.pop(change.path, None)
        stamps = dict(self._history.replaced)
        left = sort_out(self._trash(staged.seq), staged.moves, record.changes, stamps)
        self._open = _Open(record, staged.moves, left, stamps)
        return Applied(staged.seq, staged.number, record.before, ms, carrier.renames,
                       self._kept(staged.seq, left), tuple(carrier.left))

    def undo(self, applied: Applied, *, freeze: Freeze = contextlib.nullcontext) -> Applied:
        """Lead the tree back to what it was before ``applied``, which must not be committed.

        Raises ApplyError.
        """
        self._need_ready()
        opened = self._open
        if opened is None or opened.record.seq != applied.seq:
            raise ApplyError(f"generation {applied.number} can't be undone any more: roll back")
        moves = undo_moves(opened.moves, opened.record.changes, self._is_there)
        back = backward(opened.record, moves)
        prepared = self._journal.path + ".new"
        try:
            self._history.write(back, prepared)
            ms, carrier = self._carry(back, moves, prepared, freeze)
        except OSError as error:
            raise typed(error, self.root, f"undoing generation {applied.number}") from error
        self._open = None
        self._contents.forget()
        kept = self._put_away_undone(opened)
        return Applied(applied.seq, self.number, applied.number, ms, carrier.renames, kept,
                       tuple(carrier.left))

    def commit(self, applied: Applied) -> None:
        """``applied`` stays: what it replaced goes to the store, and older generations may go.

        Happens by itself before the next batch. Not urgent; it takes some 30 µs a file.
        """
        if self._open is not None and self._open.record.seq == applied.seq:
            self._commit(self._open)

    def _carry(self, record: Record, moves: Sequence[Move], prepared: str, freeze: Freeze
               ) -> tuple[float, Carrier]:
        trash = f"trash/{record.seq}"
        with self._root_folders() as root:
            os.makedirs(os.path.join(self.home, trash), mode=0o700, exist_ok=True)
            carrier = Carrier(root, self.home, trash, self._ops,
                              self._umask if self.traits.modes else None)
            carrier.keep_replaced(moves)
            with freeze():
                begun = time.perf_counter()
                self._journal.begin(prepared)
                try:
                    carrier.carry(moves)
                except OSError:
                    self._turn_back(record, moves, carrier)
                    raise
                ms = (time.perf_counter() - begun) * 1000
        self._ready = False  # The tree has moved: from here on an error needs recovery.
        self._journal.end(record)
        self._ready = True
        return ms, carrier

    def _turn_back(self, record: Record, moves: Sequence[Move], carrier: Carrier) -> None:
        """A move failed: lead back what was done, while the program is still frozen.

        When that fails too, the journal stays and ``recover`` finishes the batch.
        """
        self._ready = False
        if not leads_back(record):
            carrier.carry(undo_moves(moves, record.changes, self._is_there))
            self._journal.remove()
            self._ready = True

    def _commit(self, opened: _Open) -> None:
        seq = opened.record.seq
        try:
            put_away(opened.leftovers, self._trash(seq), self._kept_folder(seq), self.store,
                     self._ops)
            remove_tree(self._ops, os.path.join(self.home, "stage", str(seq)))
        except OSError as error:
            raise typed(error, self.home, "committing") from error
        self._open = None
        self.prune()

    def _put_away_undone(self, opened: _Open) -> tuple[Kept, ...]:
        seq, record = opened.record.seq, opened.record
        stage = os.path.join(self.home, "stage", str(seq))
        undone = sort_out(stage, opened.moves, backward(record, ()).changes, record.stamps)
        rest = sort_out(self._trash(seq), opened.moves, record.changes, opened.stamps)
        for left, folder in ((undone, stage), (rest, self._trash(seq))):
            put_away(left, folder, self._kept_folder(seq), self.store, self._ops)
            self._spare.extend(digest for digest, _ in left.known if digest)
        return self._kept(seq, undone) + self._kept(seq, rest)

    # -- going back and pruning -----------------------------------------------------------------

    def generations(self) -> tuple[int, ...]:
        """The numbers that ``rollback`` can lead to, oldest first; the last is the tree's own."""
        return self._history.numbers()

    def rollback(self, number: int) -> tuple[Change, ...]:
        """The changes that lead to generation ``number``: to be staged under a new number.

        Their contents are here, unless they were damaged. Raises ApplyError for a generation that
        is not kept.
        """
        self._need_ready()
        return diff(self.manifest(verify=False), self._history.at(number))

    def prune(self, count: int = pruning.KEEP_GENERATIONS,
              max_bytes: int = pruning.KEEP_BYTES) -> None:
        """Keep the last ``count`` generations at least, and contents of ``max_bytes`` at most."""
        try:
            oldest = pruning.forget_old(self._history, self.store, count=count,
                                        max_bytes=max_bytes, keep=self._spare)
            if oldest is not None:
                self._forget_kept(oldest)
            self._history.compact()
        except OSError as error:
            raise typed(error, self.home, "pruning") from error

    def _forget_kept(self, oldest: int) -> None:
        folder = os.path.join(self.home, "kept")
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(folder):
                if name.isdigit() and int(name) < oldest:
                    remove_tree(self._ops, os.path.join(folder, name))

    # -- recovery -------------------------------------------------------------------------------

    def recover(self) -> Recovered:
        """Bring tree and home to one state after whatever happened; always the first call.

        Raises ApplyError when even that is not possible (a disk that is read-only, say).
        """
        try:
            outcome = self._recover()
            state = self.state()
            if state is TreeState.RECREATED:
                self._forget_everything()
        except OSError as error:
            raise typed(error, self.root, "recovering") from error
        return Recovered(outcome, self._history.number, state)

    def _recover(self) -> Outcome:
        self._open, self._damaged = None, {}
        self._contents.forget()
        try:
            self._history.load()
            record = self._journal.load()
            self._ready = True
            if record is not None and not self._is_ours(os.stat(self.root)):
                raise StoreError("the tree was replaced inside a batch", file=self.root)
            outcome = Outcome.NOTHING if record is None else self._go_on(record)
            self._sweep()
        except StoreError:
            self._ready = True
            self._forget_everything()
            return Outcome.LOST
        return outcome

    def _go_on(self, record: Record) -> Outcome:
        moves = moves_of(record)
        with self._root_folders() as root:
            trash = f"trash/{record.seq}"
            os.makedirs(os.path.join(self.home, trash), mode=0o700, exist_ok=True)
            carrier = Carrier(root, self.home, trash, self._ops,
                              self._umask if self.traits.modes else None)
            carrier.carry(moves)
        self._journal.end(record)
        return Outcome.BACK if leads_back(record) else Outcome.FORWARD

    def _sweep(self) -> None:
        """What the dead one had staged goes; what it had taken out of the tree is put away."""
        for name in os.listdir(os.path.join(self.home, "stage")):
            remove_tree(self._ops, os.path.join(self.home, "stage", name))
        for name in os.listdir(os.path.join(self.home, "trash")):
            if name.isdigit():
                self._sweep_trash(int(name))

    def _sweep_trash(self, seq: int) -> None:
        try:
            record = self._history.record(seq)
        except FileNotFoundError:
            record = Record(seq, 0, 0, ())
            self._remove_second_names(self._trash(seq))
        left = sort_out(self._trash(seq), moves_of(record), record.changes, None)
        put_away(left, self._trash(seq), self._kept_folder(seq), self.store, self._ops)

    def _remove_second_names(self, trash: str) -> None:
        """Of a batch that was never begun, or was undone: the tree has these files itself."""
        for folder, _, names in os.walk(trash):
            for name in names:
                path = os.path.join(folder, name)
                if os.lstat(path).st_nlink > 1:
                    self._ops.unlink(path)

    def _forget_everything(self) -> None:
        self._history.forget()
        self._journal.remove()
        self._contents.forget()
        self._marker = None
        with contextlib.suppress(FileNotFoundError):
            self._ops.unlink(os.path.join(self.home, "marker"))
        for name in ("stage", "trash"):
            remove_tree(self._ops, os.path.join(self.home, name))
            self._ops.mkdir(os.path.join(self.home, name), 0o700)

    # -- within ---------------------------------------------------------------------------------

    def _need_ready(self) -> None:
        if not self._ready:
            raise ApplyError("the tree was not recovered yet")

    def _root_folders(self) -> Folders:
        """The tree's folders, refused when another root stands there than the one that was filled.

        Writing into it would mix two trees, and what it holds is somebody else's.
        """
        try:
            folders = Folders(self.root)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ApplyError(f"the tree {self.root} is gone: {error.strerror}",
                             file=self.root) from error
        if not self._is_ours(os.fstat(folders.root)):
            folders.close()
            raise ApplyError(f"the tree {self.root} was replaced by another one", file=self.root)
        return folders

    def _is_ours(self, facts: os.stat_result) -> bool:
        """Whether that root is the one that was filled; any is, as long as none was."""
        marker = self._marker
        return marker is None or (marker.device, marker.inode) == (facts.st_dev, facts.st_ino)

    def _mark(self) -> None:
        if self._marker is None:
            facts = os.stat(self.root)
            marker = Marker(self.session, facts.st_dev, facts.st_ino)
            marker.save(self.home, self._ops)
            self._marker = marker

    def _present(self) -> Mapping[str, Entry]:
        if not self._damaged:
            return self._history.manifest
        return {path: entry for path, entry in self._history.manifest.items()
                if path not in self._damaged}

    def _relative(self, changes: Iterable[Change]) -> tuple[Change, ...]:
        """The changes against what we know to have put there, whatever the sender believes."""
        return tuple(self._against_recorded(changes))

    def _against_recorded(self, changes: Iterable[Change]) -> Iterator[Change]:
        recorded = self._history.manifest
        for change in changes:
            old = recorded.get(change.path)
            if change.new is None and old is None:
                continue
            if old is not None and change.new is not None and change.path not in self._damaged \
                    and old.same(change.new):
                continue
            yield change if change.old is old else Change(change.path, old, change.new)

    def _repaired(self, change: Change) -> Change:
        """A damaged file is placed again, even where only its mode would change."""
        old, new = change.old, change.new
        if new is not None and old is not None and change.path in self._damaged \
                and old.kind is not Kind.DIR and new.kind is not Kind.DIR:
            return Change(change.path, new, new)
        return change

    def _is_there(self, path: str) -> bool:
        return os.path.lexists(os.path.join(self.home, path))

    def _staged_record(self, seq: int) -> str:
        return os.path.join(self.home, "stage", str(seq), "record")

    def _trash(self, seq: int) -> str:
        return os.path.join(self.home, "trash", str(seq))

    def _kept_folder(self, seq: int) -> str:
        return os.path.join(self.home, "kept", str(seq))

    def _kept(self, seq: int, left: Leftovers) -> tuple[Kept, ...]:
        return tuple(Kept(path, f"{self._kept_folder(seq)}/{path}") for path, _ in left.foreign)
