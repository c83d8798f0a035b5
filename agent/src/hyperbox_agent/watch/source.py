"""The source side of every session: watcher, tree and settle, put together as batches.

The same class serves a session on the workstation and ``hyperbox-agent run`` inside a container.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.entries import Change, Entry
from hyperbox_agent.core.settle import SettleConfig, Settler, proves_write
from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Hint, Watcher, What
from hyperbox_agent.watch.gitlock import GitLock
from hyperbox_agent.watch.tree import Refresh, ScanReport, SourceTree

LOCK_LOOK = 0.005
"""Seconds between two looks at a version-control lock. Looking costs one stat."""

UNSTABLE_LOOK = 0.05
"""Seconds until a file that changed while it was hashed is read again."""

WHOLE_WRITE = frozenset({What.WRITTEN, What.MOVED_IN})

MakeWatcher = Callable[[Callable[[list[Hint]], None]], Watcher]


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes against the last accepted state."""

    serial: int
    """Grows with every batch; a higher one supersedes all before it."""
    changes: tuple[Change, ...]
    settled: bool
    """False: more may follow, work on it may begin but must not go live."""
    first_event: float
    last_event: float


class Source:
    """Watches one tree and hands out batches. Lives on one event loop.

    ``next`` gives an unsettled batch at the first event (where it is small) and a settled one when
    quiet has come. ``accept`` says that a batch is live; what is not accepted stays dirty and is
    part of the next batch.
    """

    def __init__(self, tree: SourceTree, make_watcher: MakeWatcher, clock: Clock, *,
                 settle: SettleConfig | None = None, lock: GitLock | None = None,
                 draft_limit: int = 64) -> None:
        self.tree = tree
        self.watcher: Watcher | None = None
        self.paused = False
        self.root_gone = False
        self._make_watcher = make_watcher
        self._clock = clock
        self._settler = Settler(settle)
        self._lock = lock
        self._draft_limit = draft_limit
        self._hints: list[Hint] = []
        self._unstable: set[str] = set()
        self._wake = asyncio.Event()
        self._dirty: dict[str, Entry | None] = {}
        self._serial = 0
        self._drafted: tuple[Change, ...] | None = None
        self._forced = False

    def open(self) -> ScanReport:
        """Scan the tree, then watch it. Raises WatchError when the root is not there."""
        report = self.tree.load()
        self.watcher = self._make_watcher(self._take)
        self.watcher.start(self.tree.dirs())
        # What changed between the listing and the watch: a second look is cheap, it only stats.
        self._absorb(self.tree.rescan(), {})
        return report

    def close(self) -> None:
        """Stop watching and keep what was learned for the next start."""
        if self.watcher is not None:
            self.watcher.close()
        self.tree.save_cache()

    def pause(self) -> None:
        """Hand out no batch until ``resume``; changes are still collected."""
        self.paused = True

    def resume(self) -> None:
        """Hand out batches again, beginning with all that was collected."""
        self.paused = False
        self._wake.set()

    @property
    def pending(self) -> int:
        """How many paths differ from the accepted state."""
        return len(self._dirty)

    @property
    def quiet(self) -> bool:
        """Whether nothing waits to be looked at or to be settled."""
        return not self._hints and not self._unstable and self._settler.first is None

    def poke(self) -> None:
        """Hand out what is dirty as a settled batch, event or not."""
        self._forced = True
        self._wake.set()

    def expect(self, changes: Iterable[Change]) -> None:
        """Count ``changes`` as not accepted yet: the target differs from the source in them."""
        for change in changes:
            self._dirty.setdefault(change.path, change.old)

    def accept(self, changes: Iterable[Change]) -> None:
        """These changes are live: they are the state that later ones are compared with."""
        for change in changes:
            if change.path in self._dirty:
                self._mark(change.path, change.new)

    def changes(self) -> tuple[Change, ...]:
        """What differs from the accepted state now, in the order of paths."""
        manifest = self.tree.manifest
        return tuple(Change(path, old, manifest.get(path))
                     for path, old in sorted(self._dirty.items()))

    def sync(self) -> None:
        """Look at every event that the kernel has for us, now. For ``flush``."""
        if self.watcher is not None:
            self.watcher.drain()
        self._look()

    async def next(self) -> Batch:
        """The next batch. Raises WatchError when the root vanished; call again to wait for it."""
        while True:
            self._look()
            batch = self._ready()
            if batch is not None:
                return batch
            await self._wait()

    # -- events -------------------------------------------------------------------------------

    def _take(self, hints: list[Hint]) -> None:
        self._hints.extend(hints)
        self._wake.set()

    def _look(self) -> None:
        hints, self._hints = self._hints, []
        if any(hint.what is What.ROOT_GONE for hint in hints):
            self.root_gone = True
            raise WatchError(f"the project folder is gone: {self.tree.root}",
                             file=self.tree.root,
                             hint="nothing was deleted anywhere; put it back and work goes on")
        if any(hint.what is What.ROOT_BACK for hint in hints):
            self.root_gone = False
            if self._lock is not None:
                self._lock.look_again()
        if self._unstable:
            again = self._clock.now()
            hints += [Hint(path, What.CHANGED, again) for path in self._unstable]
            self._unstable = set()
        if hints and not self.root_gone:
            self._absorb(self.tree.refresh(hints), {hint.path: hint for hint in hints})

    def _absorb(self, refresh: Refresh, hints: dict[str, Hint]) -> None:
        now = self._clock.now()
        self._unstable |= refresh.unstable
        if self.watcher is not None:
            for path in refresh.gone_dirs:
                self.watcher.forget(path)
            for path in refresh.new_dirs:
                self.watcher.add(path)
        for path in refresh.unstable:
            self._settler.event(path, False, now)
        for change in refresh.changes:
            self._mark(change.path, self._dirty.get(change.path, change.old))
            hint = hints.get(change.path)
            whole = hint is not None and hint.what in WHOLE_WRITE and proves_write(change)
            self._settler.event(change.path, whole, hint.at if hint else now)
        if not self._dirty and not self._unstable:
            # Undone before it went live: there is nothing to settle, and an unsettled batch that
            # was handed out must be taken back.
            if self._drafted is None:
                self._settler.forget()

    def _mark(self, path: str, old: Entry | None) -> None:
        """``path`` counts as ``old`` on the accepted side; it is clean where the tree agrees."""
        current = self.tree.manifest.get(path)
        clean = (current is None) if old is None else (current is not None and old.same(current))
        if clean:
            self._dirty.pop(path, None)
        else:
            self._dirty[path] = old

    # -- batches ------------------------------------------------------------------------------

    def _ready(self) -> Batch | None:
        if self.paused or self.root_gone:
            return None
        if self._forced and not self._unstable and self._settler.first is None:
            self._forced = False
            return self._hand_out(settled=True)
        deadline = self._settler.deadline()
        if deadline is None:
            return None
        if self._clock.now() >= deadline and not self._unstable and not self._locked():
            return self._hand_out(settled=True)
        return self._draft()

    def _locked(self) -> bool:
        return self._lock is not None and self._lock.held()

    def _draft(self) -> Batch | None:
        if len(self._dirty) > self._draft_limit or self._unstable or self._locked():
            return None
        changes = self.changes()
        if changes == self._drafted:
            return None
        self._drafted = changes
        return self._batch(changes, settled=False)

    def _hand_out(self, *, settled: bool) -> Batch | None:
        drafted, self._drafted = self._drafted, None
        changes = self.changes()
        batch = self._batch(changes, settled=settled)
        self._settler.taken()
        self._forced = False
        if not changes and not drafted:
            return None
        return batch

    def _batch(self, changes: tuple[Change, ...], *, settled: bool) -> Batch:
        self._serial += 1
        now = self._clock.now()
        first = self._settler.first if self._settler.first is not None else now
        return Batch(self._serial, changes, settled, first, self._settler.last or now)

    async def _wait(self) -> None:
        """Until an event comes or the clock reaches what was decided to be waited for."""
        pause = self._pause()
        self._wake.clear()
        if self._hints:
            return
        if pause is None:
            await self._wake.wait()
            return
        sleeper = asyncio.ensure_future(self._clock.sleep(pause))
        waker = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({sleeper, waker}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()
            waker.cancel()

    def _pause(self) -> float | None:
        if self.paused or self.root_gone:
            return None
        if self._unstable:
            return UNSTABLE_LOOK
        deadline = self._settler.deadline()
        if deadline is None:
            return None
        return max(deadline - self._clock.now(), 0.0) or LOCK_LOOK
