"""A mirrored tree: batches are staged beside it and applied to it as one unit.

What holds at any moment, and after ``recover`` also when this process was killed at any point:
the tree is all-old or all-new, and what the home says of it is true.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hyperbox_agent.apply import home as homes
from hyperbox_agent.apply.ahead import Ahead
from hyperbox_agent.apply.batches import Applied, Batches, Freeze, Outcome
from hyperbox_agent.apply.boot import Boot
from hyperbox_agent.apply.contents import Contents
from hyperbox_agent.apply.damage import Damage, find_damage
from hyperbox_agent.apply.folders import Folders
from hyperbox_agent.apply.foreign import find_foreign
from hyperbox_agent.apply.home import Marker, TreeState
from hyperbox_agent.apply.journal import forward
from hyperbox_agent.apply.moves import Move, moves_for
from hyperbox_agent.apply.places import Places
from hyperbox_agent.apply.probe import traits_of
from hyperbox_agent.apply.stage import Staged, Stager
from hyperbox_agent.apply.written import Written, still_there
from hyperbox_agent.core.entries import Change, Entry, Kind, Manifest
from hyperbox_agent.core.plan import diff, order, validate
from hyperbox_agent.errors import AgentError, ApplyError, MissingBlobsError, StoreError
from hyperbox_agent.store import pruning
from hyperbox_agent.store.blobs import BlobStore
from hyperbox_agent.store.born import birth
from hyperbox_agent.store.collector import collector_paused
from hyperbox_agent.store.history import History
from hyperbox_agent.store.ops import Ops, remove_tree
from hyperbox_agent.store.record import Record
from hyperbox_agent.store.space import typed

__all__ = ["Applied", "Blobs", "Freeze", "Outcome", "Recovered", "Tree"]

Blobs = Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes | Iterable[bytes]]]


@dataclass(frozen=True, slots=True)
class Recovered:
    """The tree as ``recover`` leaves it."""

    outcome: Outcome
    number: int
    """The generation that the tree holds; 0: none that is known."""
    state: TreeState


class Tree:
    """One tree and its home. One user at a time, across processes; not for several threads.

    Call ``recover`` first. Everything may raise ApplyError, and NoSpaceError where it writes.
    """

    def __init__(self, root: str, home: str | None = None, *, session: str = "",
                 keep: pruning.Keep | None = None, ops: Ops | None = None,
                 umask: int | None = None) -> None:
        """The tree at ``root`` with its home beside it. ``session`` is whom it is filled for.

        Raises ApplyError when the two are on different filesystems, or another agent has the home.
        """
        self.root = os.path.realpath(root)
        self.home = os.path.realpath(home or homes.default_home(root))
        self.session = session
        self.keep = keep or pruning.Keep()
        """What stays of the older generations, from the next batch on."""
        self._ops = ops or Ops()
        self.early = Ahead(f"{self.home}/stage/ahead", self._ops)
        """Files that came ahead of the first batch."""
        homes.prepare(self.root, self.home)
        self._lock = homes.lock(self.home)
        self._places = Places(self.home)
        try:
            self._places.make()
            self.store = BlobStore(os.path.join(self.home, "store"), self._ops)
            self._history = History(self.home, self._ops)
            self.traits = traits_of(self.root, self.home, self._ops)
        except OSError as error:
            self.close()
            raise typed(error, self.home, "opening the home") from error
        except BaseException:
            self.close()
            raise
        if umask is None:
            umask = homes.current_umask()
        self._batches = Batches(self._places, self._root_folders, store=self.store,
                                history=self._history, ops=self._ops,
                                umask=umask if self.traits.modes else None)
        self._contents = Contents(self.store, self.root)
        self._damaged: dict[str, Entry | None] = {}
        self._marker = Marker.load(self.home)
        self._boot = Boot(self.home)
        self._seq = 0

    def close(self) -> None:
        """Let another agent have the home."""
        try:
            self.early.close()
        finally:
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
        if marker.session != self.session or not self._is_ours(self.root):
            return TreeState.RECREATED
        if self._history.manifest and not os.listdir(self.root):
            return TreeState.RECREATED
        return TreeState.KNOWN

    @property
    def recorded(self) -> Manifest:
        """What was put there, whatever became of it: the tree's own record, not to be kept."""
        return self._history.manifest

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
        """What the program changed or removed of what was put there. A ``stat`` for each entry; all
        is read once the machine was started anew, which may have lost power."""
        self._need_ready()
        self._damaged = {}
        found = self._look(self._history.manifest)
        if not found:
            self._boot.whole()
        return found

    def _look(self, recorded: Manifest) -> tuple[Damage, ...]:
        """The damage among these entries, which nothing is known of yet."""
        try:
            with self._root_folders() as root:
                found, touched = find_damage(root, recorded, self._history.stamps,
                                             modes=self.traits.modes)
        except OSError as error:
            raise typed(error, self.root, "looking through the tree") from error
        self._history.restamp(touched)
        self._damaged.update((item.path, item.now) for item in found)
        return found

    def _look_again(self, changes: Iterable[Change]) -> None:
        """The program may have written, since the last look, what ``changes`` are about."""
        recorded = self._history.manifest
        touched = {change.path: recorded[change.path] for change in changes
                   if change.path in recorded}
        for path in touched:
            self._damaged.pop(path, None)
        self._look(touched)

    def foreign(self) -> tuple[str, ...]:
        """Files in the tree that were not put there: see ``apply.foreign``."""
        return find_foreign(self.root, self._history.manifest)

    def content(self, digest: bytes) -> bytes | None:
        """A content that is here, verified: the base of a delta. None: it is not here."""
        pieces = self._contents.pieces(digest, self._present())
        try:
            return None if pieces is None else b"".join(pieces)
        except MissingBlobsError:
            return None

    def written(self, look: Written) -> tuple[dict[str, Entry], dict[str, Entry]]:
        """What was put at the paths that ``look`` is for, and what stands there now."""
        self._need_ready()
        recorded = self._history.manifest
        try:
            with self._root_folders() as root:
                found = look.look(root, recorded)
        except OSError as error:
            raise typed(error, self.root, "looking for what the program wrote") from error
        return look.recorded(recorded, found), found

    def adopt(self, entries: Iterable[Entry]) -> None:
        """What the program wrote at these paths is the tree's own from now on: the source has it.

        An entry that doesn't stand there any more is passed over. Nothing in the tree moves.
        """
        self._need_ready()
        if self._batches.commit():
            self.prune()
        recorded = self._history.manifest
        self._seq = seq = max(self._seq, self._history.seq) + 1
        try:
            with self._root_folders() as root:
                standing, stamps = still_there(root, entries)
            changes = tuple(Change(entry.path, recorded.get(entry.path), entry)
                            for entry in standing)
            if changes:
                record = Record(seq, self.number, self.number, changes, stamps)
                prepared = os.path.join(self.home, "adopted.new")
                self._history.write(record, prepared)
                self._history.accept(record, prepared)
        except OSError as error:
            raise typed(error, self.home, "taking up what the program wrote") from error
        self._contents.moved(changes)
        for change in changes:
            self._damaged.pop(change.path, None)

    # -- staging --------------------------------------------------------------------------------

    def missing(self, changes: Sequence[Change]) -> tuple[bytes, ...]:
        """The digests that must be sent for ``changes``: in no store and under no path here."""
        return self._contents.missing(self._relative(changes), self._present())

    def lacks(self, digests: Sequence[bytes]) -> tuple[bytes, ...]:
        """Those of ``digests`` that are nowhere here."""
        return self._contents.lacks(digests, self._present())

    def ahead(self, files: Sequence[tuple[Entry, bytes | memoryview]]) -> None:
        """Take files of the first batch, before that is known: ``begin`` uses those that it has
        just so. Raises ApplyError in a tree that holds something, and as ``Ahead.add``.
        """
        self._need_ready()
        if self._history.number or self._history.manifest:
            raise ApplyError("only an empty tree takes files ahead of a batch")
        with collector_paused():
            self.early.add(files)

    def begin(self, number: int, changes: Sequence[Change]) -> Stager:
        """Begin to stage generation ``number``: ``add`` what ``missing`` named, then ``finish``.

        What it touches is looked at first, and only that: the price of a save does not grow with
        the tree. Raises ApplyError for a batch that is refused, NoSpaceError when it does not fit.
        """
        self._need_ready()
        if self._batches.commit():
            self.prune()
        with collector_paused(), contextlib.closing(self.early):
            self._look_again(changes)
            batch = self._relative(changes)
            validate(batch, self._history.manifest, folding=self.traits.folding)
            steps = order([self._repaired(change) for change in batch],
                          folding=self.traits.folding)
            self._seq = seq = max(self._seq, self._history.seq) + 1
            return self._stager(seq, number, batch,
                                moves_for(steps, f"stage/{seq}", f"trash/{seq}"))

    def _stager(self, seq: int, number: int, batch: tuple[Change, ...], moves: tuple[Move, ...]
                ) -> Stager:
        present = self._present()
        base, before = self._history.seq, self._history.number

        def seal(stager: Stager) -> Staged:
            record = forward(seq, number, before, batch, stager.stamps, moves)
            try:
                self._history.write(record, self._places.staged_record(seq))
            except OSError as error:
                stager.abandon()
                raise typed(error, self.home, "staging") from error
            return Staged(seq, number, base, batch, moves, record, stager.places, stager.bytes)

        return Stager(self._places.stage(seq), batch, moves, ops=self._ops, seal=seal,
                      ahead=self.early,
                      local=lambda digest: self._contents.pieces(digest, present))

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
        try:
            for change in staged.changes:
                place = staged.file(change.path)
                if place and change.new is not None and change.new.kind is Kind.FILE:
                    self.store.adopt(change.new.digest, place)
                    self._batches.spare.append(change.new.digest)
            remove_tree(self._ops, self._places.stage(staged.seq))
        except OSError as error:
            raise typed(error, self.home, "discarding a batch") from error

    # -- applying -------------------------------------------------------------------------------

    def apply(self, staged: Staged, *, freeze: Freeze = contextlib.nullcontext) -> Applied:
        """Make the tree hold ``staged``; the program is inside ``freeze()`` for the renames.

        Raises ApplyError, NoSpaceError or what ``freeze`` raises, and then the tree is as it was.
        """
        self._need_ready()
        if staged.base != self._history.seq:
            raise ApplyError(f"generation {staged.number} was staged against another version")
        self._mark()
        try:
            applied = self._batches.apply(staged, freeze)
        except Exception:
            if not self._batches.begun:  # the program could not be stopped for it, say
                with contextlib.suppress(AgentError, OSError):
                    self._batches.forget_copies(staged.seq)
                    self.discard(staged)
            raise
        self._contents.moved(staged.changes)
        for change in staged.changes:
            self._damaged.pop(change.path, None)
        return applied

    def undo(self, applied: Applied, *, freeze: Freeze = contextlib.nullcontext) -> Applied:
        """Lead the tree back to what it was before ``applied``, which must not be committed.

        Raises ApplyError.
        """
        self._need_ready()
        undone = self._batches.undo(applied, freeze)
        self._contents.forget()
        return undone

    def commit(self, applied: Applied) -> None:
        """``applied`` stays: what it replaced goes to the store, and older generations may go.

        Happens by itself before the next batch. Not urgent; it takes some 30 µs a file.
        """
        if self._batches.commit(applied.seq):
            self.prune()

    # -- going back and pruning -----------------------------------------------------------------

    def generations(self) -> tuple[int, ...]:
        """The numbers that ``rollback`` can lead to, oldest first; the last is the tree's own."""
        return self._history.numbers()

    def rollback(self, number: int) -> tuple[Change, ...]:
        """The changes that lead to generation ``number``: to be staged under a new number.

        Damage is looked for and mended by them. Their contents are here, unless they were damaged.
        Raises ApplyError for a generation that is not kept.
        """
        self._need_ready()
        kept = self._history.at(number)
        return diff(self.manifest(), kept)

    def prune(self) -> None:
        """Forget the older generations but for what ``keep`` says. Every batch does that."""
        try:
            oldest = pruning.forget_old(self._history, self.store, self.keep,
                                        self._batches.spare)
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
        self._damaged = {}
        self._contents.forget()
        try:
            self._history.load()
            if not self._boot.same:
                self._history.doubt()
            if self._batches.journal.is_open() and not self._is_ours(self.root):
                raise StoreError("the tree was replaced inside a batch", file=self.root)
            return self._batches.recover()
        except StoreError:
            self._forget_everything()
            return Outcome.LOST

    def _forget_everything(self) -> None:
        self._marker = None
        self.early.close()
        with contextlib.suppress(FileNotFoundError):
            self._ops.unlink(os.path.join(self.home, "marker"))
        self._history.forget()
        self._batches.forget()
        self._contents.forget()

    # -- within ---------------------------------------------------------------------------------

    def _need_ready(self) -> None:
        if self._batches.broken:
            raise ApplyError("the tree is to be recovered first")

    def _root_folders(self) -> Folders:
        """The tree's folders, refused when another root stands there than the one that was filled.

        Writing into it would mix two trees, and what it holds is somebody else's.
        """
        try:
            folders = Folders(self.root)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ApplyError(f"the tree {self.root} is gone: {error.strerror}",
                             file=self.root) from error
        if not self._is_ours(folders.root):
            folders.close()
            raise ApplyError(f"the tree {self.root} was replaced by another one", file=self.root)
        return folders

    def _is_ours(self, root: str | int) -> bool:
        """Whether that root is the one that was filled; any is, as long as none was."""
        marker = self._marker
        return marker is None or marker.names(os.stat(root), birth(root))

    def _mark(self) -> None:
        """Whose tree it is; ahead of the first batch, since after it nothing may fail any more."""
        if self._marker is None:
            try:
                marker = Marker.of(self.session, os.stat(self.root), birth(self.root))
                marker.save(self.home, self._ops)
            except OSError as error:
                raise typed(error, self.home, "marking the tree") from error
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
