"""Notices what the program writes at pulled paths of a mirrored tree, and tells that it did.

It only tells: the session asks what is there, decides, and says what the source has taken up. A
session that was away asks when it is back, so nothing here must be remembered.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from hyperbox_agent.apply.damage import read_file
from hyperbox_agent.apply.folders import Folders
from hyperbox_agent.apply.written import Written
from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.entries import Entry, Kind, Manifest
from hyperbox_agent.core.pulls import PullRules
from hyperbox_agent.errors import AgentError, ApplyError
from hyperbox_agent.supervise.mirror import Mirror
from hyperbox_agent.supervise.transaction import Transaction
from hyperbox_agent.watch.base import Hint, Watcher, What
from hyperbox_agent.watch.choose import choose_watcher

QUIET = 0.1
"""Seconds without an event that a write must show: a file between truncate and write, or a lock
file half way through a resolver's work, is not to be carried anywhere."""
LONGEST = 2.0
"""Seconds after which it is looked at all the same."""

AGAIN = 5.0
"""Seconds until the watch is tried again where it could not be set (no watches left, no tree)."""

Look = Callable[[], Awaitable[tuple[Manifest, Manifest]]]
"""What was put at the pulled paths, and what stands there; waits for a batch that is at work."""


class Pulls:
    """Pulled paths of one mirrored tree: watched from the start, asked for by the session."""

    def __init__(self, root: str, rules: PullRules, mirror: Mirror, transaction: Transaction,
                 clock: Clock, tell: Callable[[], None], problem: Callable[[str], None]) -> None:
        self._root = root
        self._rules = rules
        self._mirror = mirror
        self._transaction = transaction
        self._written = Written(rules)
        self._watch = PullWatch(root, rules, self.look, lambda: self._written.folders, clock, tell,
                                problem)
        self._running = asyncio.ensure_future(self._watch.run())

    def poke(self) -> None:
        """The tree was changed by a batch."""
        self._watch.poke()

    def close(self) -> None:
        """Watch no more."""
        self._running.cancel()

    async def look(self) -> tuple[Manifest, Manifest]:
        """What was put at the pulled paths, and what stands there now. Raises ApplyError."""
        return await self._transaction.between(lambda: self._mirror.written(self._written))

    async def content(self, path: str) -> bytes:
        """The bytes of a file at a pulled path. Raises ApplyError."""
        if not self._rules(path):
            raise ApplyError(f"{path!r} is not pulled", file=path)
        return await asyncio.to_thread(self._read, path)

    def _read(self, path: str) -> bytes:
        try:
            with Folders(self._root) as root:
                folder, name = root.parent(path)
                return read_file(name, folder)
        except OSError as error:
            raise ApplyError(f"{path!r} can't be read: {os.strerror(error.errno or 0)}",
                             file=path) from error

    async def adopt(self, entries: Sequence[Entry]) -> None:
        """The source has these as they stand here. Raises ApplyError."""
        wanted = [entry for entry in entries if self._rules(entry.path, is_dir=True)
                  or entry.kind is Kind.DIR]
        await self._transaction.between(lambda: self._mirror.adopt(wanted))


class PullWatch:
    """Runs until cancelled. Lives on one event loop."""

    def __init__(self, root: str, rules: PullRules, look: Look,
                 folders: Callable[[], frozenset[str]], clock: Clock,
                 tell: Callable[[], None], problem: Callable[[str], None]) -> None:
        """``folders``: those of the last look, to be watched."""
        self._root = root
        self._rules = rules
        self._look = look
        self._folders = folders
        self._clock = clock
        self._tell = tell
        self._problem = problem
        self._wake = asyncio.Event()
        self._last = 0.0
        self._watched: set[str] = set()
        self._told: dict[str, Entry] = {}

    async def run(self) -> None:
        """Watch, look, tell; where that can't be done now, try again."""
        said = ""
        while True:
            try:
                await self._run()
            except (AgentError, OSError) as error:
                why = error.message if isinstance(error, AgentError) else error.strerror or "?"
                if why != said:
                    self._problem(f"what the program writes is not watched: {why}")
                said = why
                await self._clock.sleep(AGAIN)

    async def _run(self) -> None:
        watcher = choose_watcher(self._root, self._take)
        try:
            watcher.start([""])
            self._watched = {""}
            # All is looked at: what came while nobody watched is among it.
            self._wake.set()
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._quiet()
                try:
                    recorded, found = await self._look()
                except ApplyError:
                    continue  # The tree is gone or replaced: the next batch says so.
                if self._watch_more(watcher):
                    # What was written before the watch was set made no event: look once more.
                    self._wake.set()
                self._told = self._news(recorded, found, self._told, self._tell)
        finally:
            watcher.close()

    def poke(self) -> None:
        """The tree was changed by a batch: there may be new folders to watch."""
        self._last = self._clock.now()
        self._wake.set()

    @staticmethod
    def _news(recorded: Manifest, found: Manifest, told: dict[str, Entry],
              tell: Callable[[], None]) -> dict[str, Entry]:
        """Tell if something is there that was not told yet; gives what has been told now."""
        news = {path: entry for path, entry in found.items()
                if (was := recorded.get(path)) is None or not was.same(entry)}
        if any(path not in told or not told[path].same(entry) for path, entry in news.items()):
            tell()
        return news

    def _take(self, hints: list[Hint]) -> None:
        if any(self._counts(hint) for hint in hints):
            self._last = self._clock.now()
            self._wake.set()

    def _counts(self, hint: Hint) -> bool:
        if hint.what in (What.LOST, What.CHANGED, What.ROOT_BACK) or not hint.path:
            return True
        return self._rules(hint.path, is_dir=True)

    async def _quiet(self) -> None:
        began = self._clock.now()
        while True:
            now = self._clock.now()
            left = min(self._last + QUIET, began + LONGEST) - now
            if left <= 0:
                return
            await self._clock.sleep(left)

    def _watch_more(self, watcher: Watcher) -> bool:
        wanted = self._folders()
        new = wanted - self._watched
        for path in self._watched - wanted:
            watcher.forget(path)
        for path in sorted(new):
            watcher.add(path)
        self._watched = set(wanted)
        return bool(new)
