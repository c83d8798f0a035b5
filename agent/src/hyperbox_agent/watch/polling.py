"""Watching without events: for file systems that have none, and for folders without a watch."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator

from hyperbox_agent.watch.base import Hint, Problem, Sink, What
from hyperbox_agent.watch.rootguard import Root, RootGuard
from hyperbox_agent.watch.scan import lasting

PERIOD = 1.0
"""Seconds between two looks at small trees."""
SHARE = 0.05
"""Of one processor, at most, for looking: large trees are looked at less often."""


class Poller:
    """Notices that something in a folder's listing changed, by one number a folder."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._prints: dict[str, int | None] = {}
        self._young: set[str] = set()

    def __len__(self) -> int:
        return len(self._prints)

    def __contains__(self, folder: str) -> bool:
        return folder in self._prints

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._prints))

    def add(self, folder: str) -> None:
        """Look at one more folder from now on."""
        self._prints[folder] = self._print(folder)

    def forget(self, folder: str) -> None:
        """Look at it no more; unknown ones are passed over."""
        self._prints.pop(folder, None)
        self._young.discard(folder)

    def look(self) -> list[str]:
        """The folders whose listing is not what it was at the last look."""
        changed = []
        for folder, seen in list(self._prints.items()):
            # A file that was young at the last look may have been written again within the same
            # tick of the file system's clock, which no print shows: say it once more.
            young = folder in self._young
            now = self._print(folder)
            if now != seen or young:
                self._prints[folder] = now
                changed.append(folder)
        return changed

    def _print(self, folder: str) -> int | None:
        """A sum, so that the order of the listing does not matter. None: can't be listed."""
        total = 0
        read_at = time.time_ns()
        self._young.discard(folder)
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        # Its own times tell of its content, which has a print of its own.
                        total += hash((entry.name, found.st_ino, found.st_mode))
                        continue
                    total += hash((entry.name, found.st_ino, found.st_mode, found.st_size,
                                   found.st_mtime_ns, found.st_ctime_ns))
                    if not lasting(found, read_at) and found.st_ctime_ns < read_at + 10**9:
                        self._young.add(folder)
        except OSError:
            return None
        return total


class Pace:
    """How long to wait until the next look, from what the last one took."""

    def __init__(self, period: float, share: float) -> None:
        self._period = period
        self._share = share
        self.wait = period

    def took(self, seconds: float) -> None:
        """One look took so long."""
        self.wait = max(self._period, seconds / self._share)


class PollingWatcher:
    """Looks at every folder in turns. See ``base.Watcher``."""

    name = "polling"
    prompt = True

    def __init__(self, root: str, sink: Sink, *, period: float = PERIOD,
                 problems: dict[str, Problem] | None = None) -> None:
        self._root = os.path.abspath(root)
        self._sink = sink
        self._poller = Poller(self._root)
        self._guard = RootGuard(self._root)
        self._pace = Pace(period, SHARE)
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False
        self.problems: dict[str, Problem] = dict(problems or {})

    def start(self, dirs: Iterable[str]) -> None:
        """See ``base.Watcher``."""
        self._guard.require()
        for folder in dirs:
            self._poller.add(folder)
        self._schedule()

    def add(self, path: str) -> None:
        """See ``base.Watcher``."""
        if path not in self._poller and os.path.isdir(os.path.join(self._root, path)):
            self._poller.add(path)
            self._sink([Hint(path, What.CHANGED, time.monotonic(), is_dir=True)])

    def forget(self, path: str) -> None:
        """See ``base.Watcher``."""
        self._poller.forget(path)

    def catch_up(self) -> None:
        """See ``base.Watcher``."""

    def drain(self) -> None:
        """See ``base.Watcher``."""
        began = time.monotonic()
        hints = self._look()
        self._pace.took(time.monotonic() - began)
        if hints:
            self._sink(hints)

    def close(self) -> None:
        """See ``base.Watcher``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pace.wait, self._tick)

    def _tick(self) -> None:
        self.drain()
        self._schedule()

    def _look(self) -> list[Hint]:
        now = time.monotonic()
        state = self._guard.state()
        if state is Root.GONE:
            hints = [] if self._gone else [Hint("", What.ROOT_GONE, now, is_dir=True)]
            self._gone = True
            return hints
        if state is Root.REPLACED or self._gone:
            self._gone = False
            self._guard.accept()
            for folder in list(self._poller):
                self._poller.forget(folder)
            self._poller.add("")
            return [Hint("", What.ROOT_BACK, now, is_dir=True),
                    Hint("", What.LOST, now, is_dir=True)]
        return [Hint(folder, What.CHANGED, now, is_dir=True) for folder in self._poller.look()]
