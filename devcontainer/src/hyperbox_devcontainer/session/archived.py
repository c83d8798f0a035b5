"""The base of a session in place: what went live is archived here, so that one can go back to it.

The source is never written. An older generation is built in a folder of its own and run from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import re
import shutil
from collections import deque
from collections.abc import Awaitable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from hyperbox_agent.apply.archive import Archive
from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.entries import Change, Entry, Manifest
from hyperbox_agent.core.plan import after, diff
from hyperbox_agent.errors import AgentError, ApplyError
from hyperbox_agent.link.connection import Link
from hyperbox_agent.link.messages import Configured
from hyperbox_agent.store import blobs
from hyperbox_agent.trim import give_back_memory
from hyperbox_agent.watch.source import Source
from hyperbox_devcontainer.session.options import SessionOptions

ARCHIVE = "archive"
TREES = "trees"
"""Folders of the project's state: what went live, and older generations that were built to run."""
SLICE = 0.03
REST = 0.05
"""Seconds of copying and of rest: a third of one core, for less than a minute in a tree of 50,000
files, and nothing after that."""

AT_ONCE = 0.005
"""Seconds of copying before a generation is told of as live."""

MANY = 1000
"""Files whose copying leaves enough of unused memory to be worth a search for it."""

LOOK_AGAIN = 2.0
"""Seconds until it is asked again whether the last that runs from an older tree has ended."""
STATUS_TIMEOUT = 10.0

T = TypeVar("T")

NEVER_LINKED = frozenset({".git", ".hg", ".svn", "__pycache__", ".mypy_cache", ".pytest_cache",
                          ".ruff_cache", ".hypothesis", ".tox", ".nox"})


def forget_unfinished(state_dir: str) -> None:
    """Remove what a killed session had begun to archive, or to build for going back."""
    for path in _built(state_dir):
        if not _WHOLE.fullmatch(os.path.basename(path)):
            shutil.rmtree(path, ignore_errors=True)
    archive = os.path.join(state_dir, ARCHIVE)
    for path in glob.glob(os.path.join(glob.escape(archive), "*.new")):
        with contextlib.suppress(OSError):
            os.unlink(path)
    with contextlib.suppress(OSError):
        blobs.forget_unfinished(os.path.join(archive, "store"))


_WHOLE = re.compile(r"[0-9]+(-[0-9]+)?")


def forget_built(state_dir: str) -> None:
    """Remove the older generations that were built to run: nothing runs any more."""
    for path in _built(state_dir):
        shutil.rmtree(path, ignore_errors=True)


def _built(state_dir: str) -> list[str]:
    return glob.glob(os.path.join(glob.escape(os.path.join(state_dir, TREES)), "*"))


class ArchiveBase:
    """Implements ``Base`` for a program that runs from the source itself."""

    def __init__(self, options: SessionOptions, source: Source, clock: Clock) -> None:
        self._options = options
        self._source = source
        self._clock = clock
        self._archive = Archive(os.path.join(options.state_dir, ARCHIVE), options.root)
        self._trees = os.path.join(options.state_dir, TREES)
        self._live: dict[str, Entry] | None = None
        """What is live, or is being started, where the newest generation here is another."""
        self._more = asyncio.Event()
        self._more.set()
        self._turn = asyncio.Lock()
        """Contents are copied, pruned or built from by one at a time."""
        self._link: Link | None = None
        self._litter = asyncio.Event()
        """Trees may stand there from which nothing runs any more."""
        self._starting: deque[str] = deque(maxlen=2)
        """Trees that were built for what is being started: nothing runs from them yet."""

    def number(self) -> int:
        """See Base."""
        return self._archive.number

    async def learn(self, ready: Configured, link: Link) -> None:
        """In place the target holds nothing of its own; it may ask for an older tree."""
        async def locate(request: Any) -> Mapping[str, Any]:
            return {"root": await self.locate(int(request.body["number"]))}

        link.handle("locate", locate)
        self._link = link
        self._litter.set()

    def converge(self, ready: Configured, source: Source) -> tuple[Change, ...] | None:
        """See Base. A running generation that isn't kept here is replaced by a first start."""
        self._archive.share(source.tree.manifest)
        serving = ready.serving if ready.adopted else None
        if serving is None or serving not in self._archive.generations():
            # What is saved during the start is of the next generation, not of this one.
            self._live = dict(source.tree.manifest)
            source.rebase(())
            return ()
        self._live = dict(self._archive.manifest(serving))
        source.rebase(diff(self._live, source.tree.manifest))
        return None

    def committed(self, number: int, changes: tuple[Change, ...]) -> None:
        """See Base."""
        live, self._live = self._live, None
        if live is None:
            self._archive.record(number, changes)
            self._copy_at_once()
        else:
            self._archive.begin(number, after(live, changes))
        self._more.set()
        self._starting.clear()
        self._litter.set()

    def _copy_at_once(self) -> None:
        """What was just saved comes first: the next save, perhaps in a moment, writes over it."""
        if not self._turn.locked():
            with contextlib.suppress(ApplyError):  # as in ``_copy_all``
                self._archive.record_some(self._source.tree.read, AT_ONCE)

    async def kept(self) -> list[int]:
        """See Base."""
        return list(self._archive.generations())

    async def prepare_rollback(self, number: int) -> Mapping[str, Any]:
        """Build the older generation. Raises ApplyError where it can't be had whole."""
        return {"root": await self._build(number)}

    async def locate(self, number: int) -> str | None:
        """A tree with the content of ``number``: the source while it is that, else one is built.

        None: it can't be had just now.
        """
        if number not in self._archive.generations():
            # There was no room to keep it, or the word that it is live is still on its way here.
            return None if self._source.pending else self._options.root
        if not diff(self._archive.manifest(number), self._source.tree.manifest):
            return self._options.root
        try:
            return await self._build(number)
        except AgentError:
            return None

    async def _build(self, number: int) -> str:
        """Build it under a name of its own: from an older tree of it something may still run."""
        async with self._turn:
            tree = self._archive.manifest(number)
            ours, folders = frozenset(self._source.tree.manifest), tuple(self._source.tree.dirs())
            dest = self._fresh(number)
            self._starting.append(dest)
            await _whole(asyncio.to_thread(self._check_out, number, dest, tree, ours, folders))
        self._litter.set()
        return dest

    def _check_out(self, number: int, dest: str, tree: Manifest, ours: Collection[str],
                   folders: Iterable[str]) -> None:
        links = ignored_entries(self._options.root, ours, folders)
        self._archive.checkout(number, dest, links, tree)

    def _fresh(self, number: int) -> str:
        serial = 1
        while os.path.lexists(dest := os.path.join(self._trees, f"{number}-{serial}")):
            serial += 1
        return dest

    async def rolled_back(self, number: int, source: Source) -> list[str]:
        """See Base."""
        self._live = dict(self._archive.manifest(number))
        changes = diff(self._live, source.tree.manifest)
        source.rebase(changes)
        self._litter.set()
        return [change.path for change in changes]

    async def run(self) -> None:
        """Copy what is not archived yet, a little at a time; remove what was built and is over."""
        await asyncio.gather(self._copy_all(), self._tidy_all())

    async def _copy_all(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            many = self._archive.pending > MANY
            try:
                while await self._copy_some():
                    await self._clock.sleep(REST)
                async with self._turn:
                    self._archive.prune(self._options.keep)
                if many:
                    give_back_memory()
            except ApplyError:
                # No room for a way back; going forward needs none. The next generation tries anew.
                continue

    async def _copy_some(self) -> int:
        async with self._turn:
            return self._archive.record_some(self._source.tree.read, SLICE)

    async def _tidy_all(self) -> None:
        while True:
            await self._litter.wait()
            self._litter.clear()
            while await self.tidy():
                await self._clock.sleep(LOOK_AGAIN)

    async def tidy(self) -> bool:
        """Remove the trees from which nothing runs; whether more will be so in a moment."""
        if self._link is None or not _built(self._options.state_dir):
            return False
        try:
            answer = await self._link.call("status", {}, timeout=STATUS_TIMEOUT)
        except AgentError:
            return False  # the next link brings us back here
        roots = answer.body.get("roots")
        if not isinstance(roots, list) or not roots:
            return False
        async with self._turn:
            built = set(_built(self._options.state_dir))
            over = built.difference(roots, self._starting)
            await _whole(asyncio.to_thread(_remove_all, over))
        return not built.isdisjoint(roots[1:])

    async def ended(self) -> None:
        """See Base."""
        await asyncio.to_thread(forget_built, self._options.state_dir)

    def close(self) -> None:
        """What is archived stays."""


def ignored_entries(root: str, ours: Collection[str], folders: Iterable[str]) -> dict[str, str]:
    """What lies in the ``folders`` of the source and isn't ours to keep, but what a program needs:
    ``.env``, environments, databases. Path in the tree → absolute path."""
    links: dict[str, str] = {}
    for folder in folders:
        if os.path.isabs(folder):
            continue
        absolute = os.path.join(root, folder)
        try:
            names = os.listdir(absolute)
        except OSError:
            continue  # it is gone, or closed to us: so are its entries
        for name in names:
            path = f"{folder}/{name}" if folder else name
            if path not in ours and name not in NEVER_LINKED:
                links[path] = os.path.join(absolute, name)
    return links


async def _whole(work: Awaitable[T]) -> T:
    """Finish ``work`` even where we are cancelled: a thread can't be, and it has our turn."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _remove_all(trees: Iterable[str]) -> None:
    for tree in trees:
        shutil.rmtree(tree, ignore_errors=True)
