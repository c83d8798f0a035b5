"""The source side of every session: watcher, tree and settle, put together as batches.

The same class serves a session on the workstation and ``hyperbox-agent run`` inside a container.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

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

BIG = 4 * 1024 * 1024
COSTLY = 0.03
CALM = 8.0
"""A file of BIG bytes that took COSTLY seconds to read is read again only after CALM times that:
one that is written all the time must not hold up the others."""

HELD = 10.0
"""Seconds for which what the target had no room for is left out of batches; ``flush`` asks again
at once, and so does a change of the path itself."""

BREATH = 0.025
"""Seconds of quiet after which work on several changed files may begin ahead of their settling.
Without it, it would begin anew with each file of a save-all, at the price of what is answering."""

TURN = 0.010
"""Seconds after which a scan lets others work."""

OWN = 1.0
"""Seconds within which a change of a path that the program opened for writing is its own."""

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
    calm: bool = True
    """Whether work on it is worth beginning. False: it only says that what went before it is out of
    date; it comes again as soon as nothing has followed for a moment."""


class Reading(Protocol):
    """Who wants what a first scan reads anyway."""

    def take(self, entry: Entry, data: bytes) -> None:
        """A small file that was read, and its bytes."""
        ...

    async def room(self) -> None:
        """Return when the scan may go on. Others get a turn meanwhile."""
        ...


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
        self._unstable: dict[str, float] = {}
        """Paths whose content isn't known, and when to look at them again."""
        self._fresh: dict[str, float] = {}
        """Paths that became dirty since the last batch, and when."""
        self._own: dict[str, float] = {}
        """Paths that the program itself writes, and until when."""
        self._held: dict[str, tuple[float, str]] = {}
        """Dirty paths that the target can't take: until when they wait, and why."""
        self._wake = asyncio.Event()
        self._dirty: dict[str, Entry | None] = {}
        self._serial = 0
        self._drafted: tuple[Change, ...] | None = None
        self._calm = True
        """Whether what was drafted was handed out as calm."""
        self._handed = False
        """Changes were handed out and neither accepted nor undone since."""
        self._forced = False
        self._is_listed_next = False

    async def open(self, reading: Reading | None = None) -> ScanReport:
        """Scan the tree and watch it. Others get their turn meanwhile, as a big one takes seconds.
        ``reading`` may get the contents of files that are read.

        Raises WatchError when the root is not there.
        """
        watcher = self.watcher = self._make_watcher(self._take)
        if watcher.prompt:
            self.tree.on_read = reading.take if reading is not None else None
            try:
                await self._list_what_is_watched(watcher, reading)
            finally:
                self.tree.on_read = None
        else:
            self.tree.load()
            watcher.start(self.tree.dirs())
            # What changed between a listing and its watch: a second look is cheap, it only stats.
            self._absorb(self.tree.rescan(), {})
        return self.tree.report

    async def _list_what_is_watched(self, watcher: Watcher, reading: Reading | None) -> None:
        watcher.start(())
        listed: set[str] = set()
        turn = self._clock.now()
        for folder in self.tree.loading():
            listed.add(folder)
            self._is_listed_next = True
            watcher.add(folder)
            self._is_listed_next = False
            if self._clock.now() - turn >= TURN:
                await (asyncio.sleep(0) if reading is None else reading.room())
                turn = self._clock.now()
        # Environments are known by what is in them, and some folders are watched only.
        wanted = set(self.tree.dirs())
        for path in listed - wanted:
            watcher.forget(path)
        for path in wanted - listed:
            watcher.add(path)

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
        return not (self._hints or self._unstable or self._settler.first is not None
                    or (self._forced and self._dirty))

    def poke(self) -> None:
        """Hand out what is dirty as a settled batch, event or not."""
        self._forced = True
        self._wake.set()

    def rebase(self, changes: Iterable[Change]) -> None:
        """What is live differs from the tree in exactly these ``changes``."""
        self._dirty = {}
        self._held.clear()
        for change in changes:
            self._mark(change.path, change.old)

    def hold(self, paths: Iterable[str], why: str) -> None:
        """The target can't take these: they stay dirty, and no batch waits for them for a while."""
        until = self._clock.now() + HELD
        self._held.update((path, (until, why)) for path in paths)

    @property
    def held(self) -> dict[str, str]:
        """What is dirty and was refused, and why."""
        return {path: why for path, (_, why) in self._held.items() if path in self._dirty}

    def taken_up(self, changes: Iterable[Change]) -> None:
        """We wrote these into the tree ourselves, as they stand on the accepted side already.

        They make no batch, unless what stands here now is something else again.
        """
        changes = tuple(changes)
        now = self._clock.now()
        refresh = self.tree.refresh([Hint(change.path, What.CHANGED, now) for change in changes])
        told = {change.path for change in changes}
        self._absorb(Refresh(
            tuple(change for change in refresh.changes if change.path not in told),
            refresh.unstable, refresh.new_dirs, refresh.gone_dirs, refresh.rescanned), {})
        for change in changes:
            self._mark(change.path, change.new)
            if change.path in self._dirty:
                self._settler.event(change.path, False, now)
        self._wake.set()

    def doubt(self, path: str) -> None:
        """``path`` is no longer what was read: it travels with no batch until it is read again."""
        self._unstable.setdefault(path, self._clock.now() + UNSTABLE_LOOK)
        self._wake.set()

    def own(self, paths: Iterable[str]) -> None:
        """The program says that it is writing these: what changes there now is no save.

        Its word may come a moment after the event of the write, so what came just before it counts
        as its own too, unless a batch with it is on its way already.
        """
        now = self._clock.now()
        self._own = {path: until for path, until in self._own.items() if until > now}
        for path in paths:
            self._own[path] = now + OWN
            if self._fresh.pop(path, 0.0) > now - OWN:
                self._dirty.pop(path, None)

    def accept(self, changes: Iterable[Change]) -> None:
        """These changes are live: they are the state that later ones are compared with."""
        self._handed = False
        for change in changes:
            self._mark(change.path, change.new)
        if self._dirty:
            self._wake.set()  # What was handed out as work held these, too: now it is another.

    def changes(self) -> tuple[Change, ...]:
        """What differs from the accepted state now, in the order of paths."""
        manifest = self.tree.manifest
        now = self._clock.now()
        waiting = {path for path, (until, _) in self._held.items() if until > now}
        return tuple(Change(path, old, manifest.get(path))
                     for path, old in sorted(self._dirty.items())
                     if path not in self._unstable and not _at_or_below(path, waiting))

    def sync(self) -> None:
        """Look at every event that the kernel has for us, now. For ``flush``."""
        if self.watcher is not None:
            self.watcher.drain()
        self._look()
        if self.held:
            self._held.clear()
            self.poke()

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
        if self._is_listed_next:
            return  # The watcher says only that the folder is to be listed.
        self._hints.extend(hints)
        self._wake.set()

    def _look(self) -> None:
        hints, self._hints = self._hints, []
        # Gone and back again may come in one piece when the loop was busy: the last word counts.
        words = [hint.what for hint in hints if hint.what in (What.ROOT_GONE, What.ROOT_BACK)]
        if words and words[-1] is What.ROOT_GONE:
            self.root_gone = True
            raise WatchError(f"the project folder is gone: {self.tree.root}",
                             file=self.tree.root,
                             hint="nothing was deleted anywhere; put it back and work goes on")
        if words:
            self.root_gone = False
            if self._lock is not None:
                self._lock.look_again()
        hints = self._put_off(hints) + self._due()
        if not hints or self.root_gone:
            return
        began = self._clock.now()
        refresh = self.tree.refresh(hints)
        self._absorb(refresh, {hint.path: hint for hint in hints})
        self._calm_down(hints, self._clock.now() - began)

    def _put_off(self, hints: list[Hint]) -> list[Hint]:
        """Leave out what is to be read later."""
        if not self._unstable:
            return hints
        now = self._clock.now()
        for hint in hints:
            if self._unstable.get(hint.path, 0.0) > now:
                self._settler.event(hint.path, False, hint.at)
        return [hint for hint in hints if self._unstable.get(hint.path, 0.0) <= now]

    def _due(self) -> list[Hint]:
        now = self._clock.now()
        due = [path for path, when in self._unstable.items() if when <= now]
        for path in due:
            del self._unstable[path]
        return [Hint(path, What.CHANGED, now) for path in due]

    def _calm_down(self, hints: list[Hint], took: float) -> None:
        if took < COSTLY:
            return
        again = self._clock.now() + CALM * took
        for hint in hints:
            entry = self.tree.manifest.get(hint.path)
            if hint.path in self._unstable and (entry is None or entry.size > BIG):
                self._unstable[hint.path] = again

    def _absorb(self, refresh: Refresh, hints: dict[str, Hint]) -> None:
        now = self._clock.now()
        for path in refresh.unstable:
            self._unstable[path] = now + UNSTABLE_LOOK
        if self.watcher is not None:
            for path in refresh.gone_dirs:
                self.watcher.forget(path)
            for path in refresh.new_dirs:
                self.watcher.add(path)
        for path in refresh.unstable:
            self._settler.event(path, False, now)
        for change in refresh.changes:
            if self._own.get(change.path, 0.0) > now and change.path not in self._dirty:
                continue
            self._held.pop(change.path, None)
            if change.path not in self._dirty:
                self._fresh[change.path] = now
            self._mark(change.path, self._dirty.get(change.path, change.old))
            hint = hints.get(change.path)
            whole = hint is not None and hint.what in WHOLE_WRITE and proves_write(change)
            self._settler.event(change.path, whole, hint.at if hint else now)
        # Undone before it went live: there is nothing to settle, unless what was handed out must be
        # taken back.
        if not (self._dirty or self._unstable or self._drafted or self._handed):
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
        deadline = self._settler.deadline()
        if self._forced and deadline is None:
            return self._hand_out(settled=True)
        if deadline is None:
            return None
        now = self._clock.now()
        if (now >= deadline and not self._locked() and (not self._unstable or self._overdue(now))):
            return None if self._more_has_come() else self._hand_out(settled=True)
        return self._draft()

    def _more_has_come(self) -> bool:
        """Whether there are events that were not looked at yet. Ask behind the lock, not before.

        A lock that is free now may have been let go since the last look, with files written in
        between; and a look takes long where much changed, so that a whole checkout fits into one.
        What was read then is a mixture, and only these events tell.
        """
        if self.watcher is not None:
            self.watcher.catch_up()
        return bool(self._hints)

    def _overdue(self, now: float) -> bool:
        """What can't be read for so long is left to a later batch."""
        first = self._settler.first
        return first is not None and now - first >= self._settler.cap

    def _locked(self) -> bool:
        return self._lock is not None and self._lock.held()

    def _draft(self) -> Batch | None:
        if len(self._dirty) > self._draft_limit or self._unstable or self._locked():
            return None
        changes = self.changes()
        if not changes and not self._drafted and not self._handed:
            return None
        calm = len(changes) <= 1 or self._clock.now() >= self._calm_at()
        if changes == self._drafted and (self._calm or not calm):
            return None
        self._drafted, self._calm = changes, calm
        return self._batch(changes, settled=False)

    def _calm_at(self) -> float:
        return self._settler.last + BREATH

    def _hand_out(self, *, settled: bool) -> Batch | None:
        drafted, self._drafted = self._drafted, None
        changes = self.changes()
        batch = self._batch(changes, settled=settled)
        self._settler.taken()
        self._fresh.clear()
        self._forced = False
        before, self._handed = self._handed, bool(changes)
        if not changes and not drafted and not before:
            return None
        return batch

    def _batch(self, changes: tuple[Change, ...], *, settled: bool) -> Batch:
        self._serial += 1
        now = self._clock.now()
        first = self._settler.first if self._settler.first is not None else now
        return Batch(self._serial, changes, settled, first, self._settler.last or now,
                     settled or self._calm)

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
        now = self._clock.now()
        times = list(self._unstable.values())
        deadline = self._settler.deadline()
        if deadline is not None:
            if self._unstable and self._settler.first is not None:
                deadline = max(deadline, self._settler.first + self._settler.cap)
            times.append(deadline)
            if self._drafted and not self._calm and self._calm_at() > now:
                times.append(self._calm_at())
        if not times:
            return None
        return max(min(times) - now, 0.0) or LOCK_LOOK


def _at_or_below(path: str, folders: set[str]) -> bool:
    """What is put into a folder that waits must wait with it."""
    while folders and path:
        if path in folders:
            return True
        path = path.rpartition("/")[0]
    return False
