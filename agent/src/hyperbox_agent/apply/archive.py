"""The generations of a tree that is edited where it runs (in place).

Nothing is ever written into that tree. Its contents are copied into the store as they are saved, so
that an older generation can be built somewhere else and run from there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hyperbox_agent.apply.damage import digest_of
from hyperbox_agent.apply.moves import EXECUTABLE_MODE, FILE_MODE, FOLDER_MODE
from hyperbox_agent.core.entries import Change, Entry, Kind, Manifest
from hyperbox_agent.core.plan import diff
from hyperbox_agent.errors import AgentError, ApplyError, MissingBlobsError, StoreError
from hyperbox_agent.home import make_private
from hyperbox_agent.store import pruning
from hyperbox_agent.store.blobs import BlobStore
from hyperbox_agent.store.history import History
from hyperbox_agent.store.ops import Ops, remove_tree
from hyperbox_agent.store.record import Record
from hyperbox_agent.store.space import check_room, typed

BIG = 8 << 20
"""Files over this size are not copied at each save: a checkout links them from the source."""

Read = Callable[[Entry], bytes]
"""The bytes of an entry of the source; an AgentError when the file is another one by now."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """An older generation, built."""

    number: int
    root: str
    files: int
    linked: tuple[str, ...]
    """Paths that lead to the source: too big to be kept, or asked for."""
    differ: tuple[str, ...]
    """Of the big ones, those that are not in the source any more as they were then."""
    ms: float


class Archive:
    """The kept generations of ``source``. One user at a time, but for ``checkout``."""

    def __init__(self, home: str, source: str, *, ops: Ops | None = None, big: int = BIG) -> None:
        """Keep them below ``home`` (any filesystem). A damaged history is begun anew.

        Raises ApplyError, NoSpaceError.
        """
        self._source = source
        self._ops = ops or Ops()
        self._big = big
        self._pending: deque[Entry] = deque()
        try:
            make_private(home)
            self.store = BlobStore(os.path.join(home, "store"), self._ops)
            self._history = History(home, self._ops)
            self._load()
        except OSError as error:
            raise typed(error, home, "opening the archive") from error

    # -- recording ------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """The newest generation that was recorded; 0: none."""
        return self._history.number

    @property
    def pending(self) -> int:
        """How many files of the newest generation are still to be copied."""
        return len(self._pending)

    def generations(self) -> tuple[int, ...]:
        """The numbers that ``checkout`` knows, oldest first."""
        return self._history.numbers()

    def manifest(self, number: int) -> Manifest:
        """What generation ``number`` held. Raises ApplyError when it is not kept."""
        return self._history.at(number)

    def share(self, manifest: Manifest) -> None:
        """Keep the entries of ``manifest`` in place of equal ones of our own.

        A tree of 50,000 files is otherwise in memory twice (18 MB).
        """
        own = self._history.manifest
        shared = {path: entry for path, entry in manifest.items()
                  if path in own and own[path].same(entry)}
        shared.update((path, entry) for path, entry in own.items() if path not in shared)
        self._history.manifest = shared

    def begin(self, number: int, manifest: Manifest) -> None:
        """The source is now ``manifest``, whatever was recorded before. Copies nothing yet.

        Raises NoSpaceError, ApplyError.
        """
        self.record(number, diff(self._history.manifest, manifest))
        queued = {entry.path for entry in self._pending}
        self._queue(entry for path, entry in manifest.items() if path not in queued)

    def record(self, number: int, changes: Sequence[Change]) -> None:
        """Generation ``number`` is the last one with ``changes``. Copies nothing yet.

        Follow it with ``record_some``: what is overwritten before it was copied is lost to the
        archive. Raises NoSpaceError, ApplyError.
        """
        known = self._history.manifest
        relative = tuple(Change(change.path, known.get(change.path), change.new)
                         for change in changes)
        seq = self._history.seq + 1
        record = Record(seq, number, self._history.number, relative)
        path = self._history.path_of(seq)
        temporary = os.path.join(os.path.dirname(os.path.dirname(path)), "record.new")
        try:
            # Not flushed: a machine that dies loses a way back, nothing else.
            self._history.write(record, temporary)
            self._history.accept(record, temporary)
        except OSError as error:
            raise typed(error, path, "recording a generation") from error
        self._pending.extendleft(self._wanted(change.new for change in reversed(relative)))

    def record_some(self, read: Read, budget: float = 0.02) -> int:
        """Copy pending contents for about ``budget`` seconds; how many are still pending.

        A file that is another one by now is left out (the next generation has it). Raises
        NoSpaceError.
        """
        until = time.monotonic() + budget
        while self._pending:
            entry = self._pending.popleft()
            if not self.store.has(entry.digest):
                try:
                    data = read(entry)
                except AgentError:
                    continue
                with contextlib.suppress(StoreError):  # Another content than was asked for.
                    self.store.put(entry.digest, data)
            if time.monotonic() >= until:
                break
        return len(self._pending)

    def prune(self, keep: pruning.Keep) -> None:
        """Forget the older generations but for what ``keep`` says. Raises ApplyError."""
        current = (entry.digest for entry in self._history.manifest.values() if entry.digest)
        try:
            pruning.forget_old(self._history, self.store, keep, current)
            self._history.compact()
        except OSError as error:
            raise typed(error, self.store.folder, "pruning the archive") from error

    # -- going back -----------------------------------------------------------------------------

    def checkout(self, number: int, dest: str, links: Mapping[str, str],
                 tree: Manifest | None = None) -> Checkout:
        """Build generation ``number`` at ``dest``, which must not exist; verified.

        With ``tree``, its manifest, this may run in a thread while generations are recorded (but
        not while contents are: ``record_some``, ``prune``).

        ``links`` (path in the tree → absolute path) are ignored entries that the program needs; one
        that the generation has itself is left out. Nothing is at ``dest`` after an error: raises
        MissingBlobsError naming the first file that can't be had, ApplyError, NoSpaceError.
        """
        begun = time.perf_counter()
        tree = self._history.at(number) if tree is None else tree
        if os.path.lexists(dest):
            raise ApplyError(f"there is something at {dest} already", file=dest)
        building = dest.rstrip("/") + ".part"
        try:
            remove_tree(self._ops, building)
            make_private(os.path.dirname(building))
            self._ops.mkdir(building, 0o700)
            linked, differ = self._build(tree, building)
            asked = self._link(links, tree, building)
            self._ops.rename(building, dest)
        except OSError as error:
            remove_tree(self._ops, building)
            raise typed(error, os.path.dirname(dest), f"building generation {number}") from error
        except BaseException:
            remove_tree(self._ops, building)
            raise
        files = sum(entry.kind is Kind.FILE for entry in tree.values()) - len(linked)
        ms = (time.perf_counter() - begun) * 1000
        return Checkout(number, dest, files, (*linked, *asked), tuple(differ), ms)

    def _build(self, tree: Manifest, dest: str) -> tuple[list[str], list[str]]:
        entries = sorted(tree.values(), key=lambda entry: entry.path)
        check_room(dest, sum(entry.size for entry in entries if entry.size <= self._big),
                   len(entries))
        linked: list[str] = []
        differ: list[str] = []
        for entry in entries:
            path = f"{dest}/{entry.path}"
            if entry.kind is Kind.DIR:
                self._ops.mkdir(path, FOLDER_MODE)
            elif entry.kind is Kind.LINK:
                self._ops.symlink(entry.target, path)
            elif entry.size > self._big:
                self._ops.symlink(f"{self._source}/{entry.path}", path)
                (linked if self._in_source(entry) else differ).append(entry.path)
            else:
                self._copy(entry, path)
        return linked + differ, differ

    def _copy(self, entry: Entry, path: str) -> None:
        mode = EXECUTABLE_MODE if entry.executable else FILE_MODE
        try:
            self.store.copy_to(entry.digest, path, mode)
        except MissingBlobsError:
            # Not copied yet, or damaged since; the source may still have it.
            if not self._restock(entry):
                raise MissingBlobsError(f"{entry.path!r} of that generation is not kept",
                                        digests=(entry.digest,), file=entry.path) from None
            self.store.copy_to(entry.digest, path, mode)

    def _restock(self, entry: Entry) -> bool:
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(f"{self._source}/{entry.path}", flags), "rb") as file:
                self.store.put(entry.digest, file.read(self._big + 1))
        except (OSError, StoreError):
            return False
        return True

    def _in_source(self, entry: Entry) -> bool:
        try:
            return digest_of(f"{self._source}/{entry.path}", None)[1] == entry.digest
        except OSError:
            return False

    def _link(self, links: Mapping[str, str], tree: Manifest, dest: str) -> list[str]:
        made: list[str] = []
        for path, target in sorted(links.items()):
            place = f"{dest}/{path}"
            if path in tree or os.path.lexists(place):
                continue
            os.makedirs(os.path.dirname(place), exist_ok=True)
            self._ops.symlink(target, place)
            made.append(path)
        return made

    # -- within ---------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            self._history.load()
        except StoreError:
            self._history.forget()
        self._queue(self._history.manifest.values())

    def _queue(self, entries: Iterable[Entry]) -> None:
        self._pending.extend(self._wanted(entries))

    def _wanted(self, entries: Iterable[Entry | None]) -> Iterable[Entry]:
        return (entry for entry in entries
                if entry is not None and entry.kind is Kind.FILE and entry.size <= self._big
                and not self.store.has(entry.digest))
