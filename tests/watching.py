"""A watcher and a source tree put together for tests: edit files, wait until the tree has seen it.

Stands where the session stands later, without settling: every hint is looked at when it comes.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.ignore import IgnoreOptions
from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Hint, Sink, Watcher, What
from hyperbox_agent.watch.inotify import InotifyWatcher
from hyperbox_agent.watch.tree import Refresh, SourceTree

LIMIT = 30.0
"""Seconds after which a test gives up waiting. Never waited for where all is well."""

MakeWatcher = Callable[[str, Sink], Watcher]


def inotify(root: str, sink: Sink) -> Watcher:
    return InotifyWatcher(root, sink)


class Watching:
    """``async with Watching(root) as w``."""

    def __init__(self, root: Path, make: MakeWatcher = inotify, *,
                 options: IgnoreOptions | None = None) -> None:
        self.root = root
        self.tree = SourceTree(str(root), options=options)
        self.hints: list[Hint] = []
        self.history: list[Hint] = []
        self.changes: list[Change] = []
        self._new = asyncio.Event()
        self.watcher = make(str(root), self._take)

    async def __aenter__(self) -> Watching:
        self.report = self.tree.load()
        self.watcher.start(self.tree.dirs())
        self._follow(self.tree.rescan())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.watcher.close()

    def _take(self, hints: list[Hint]) -> None:
        self.hints += hints
        self.history += hints
        self._new.set()

    def _follow(self, found: Refresh) -> None:
        self.changes += found.changes
        for folder in found.gone_dirs:
            self.watcher.forget(folder)
        for folder in found.new_dirs:
            self.watcher.add(folder)
        now = time.monotonic()
        self.hints += [Hint(path, What.CHANGED, now) for path in sorted(found.unstable)]

    def look(self) -> None:
        """Look at what was hinted until now."""
        hints, self.hints = self.hints, []
        if hints and not any(hint.what is What.ROOT_GONE for hint in hints):
            try:
                self._follow(self.tree.refresh(hints))
            except WatchError:
                assert not os.path.isdir(self.root)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Follow the hints until this holds."""
        deadline = time.monotonic() + LIMIT
        while True:
            self.look()
            if holds():
                return
            assert time.monotonic() < deadline, self.difference()
            self._new.clear()
            if not self.hints:
                try:
                    await asyncio.wait_for(self._new.wait(), 0.1)
                except asyncio.TimeoutError:
                    continue

    async def equal(self) -> None:
        """Until the tree knows what a new scan finds."""
        await self.until(lambda: not self.difference())

    async def hinted(self, path: str, *whats: What) -> None:
        """Until such a hint has come."""
        await self.until(lambda: any(h.path == path and (not whats or h.what in whats)
                                     for h in self.history))

    def difference(self) -> dict[str, tuple[Entry | None, Entry | None]]:
        """Where the tree and a new scan disagree."""
        fresh = SourceTree(str(self.root), options=self.tree.options)
        fresh.load()
        return differences(self.tree.manifest, fresh.manifest)


def differences(ours: dict[str, Entry], theirs: dict[str, Entry]
                ) -> dict[str, tuple[Entry | None, Entry | None]]:
    """By path, where two manifests are not the same content."""
    found = {}
    for path in sorted(ours.keys() | theirs.keys()):
        one, two = ours.get(path), theirs.get(path)
        if one is None or two is None or not one.same(two):
            found[path] = (one, two)
    return found


def text(tree: SourceTree, path: str) -> str:
    """What the tree holds under a path, "" while that is not on disk any more."""
    try:
        return tree.read(tree.manifest[path]).decode()
    except WatchError:
        return ""


def write(root: Path, **files: str) -> None:
    """Files by name, with their folders."""
    for name, content in files.items():
        put(root, name, content)


def put(root: Path, path: str, content: str = "") -> None:
    """One file, with its folders."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def on_disk(root: Path) -> dict[str, Kind]:
    """Every path below ``root`` by kind, as plain os calls see it."""
    kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIR, stat.S_IFLNK: Kind.LINK}
    found = {}
    for folder, dirs, files in os.walk(root):
        for name in dirs + files:
            full = os.path.join(folder, name)
            kind = kinds.get(stat.S_IFMT(os.lstat(full).st_mode))
            if kind is not None:
                found[os.path.relpath(full, root)] = kind
    return found
