"""The base of a session in place: what went live is archived here, so that one can go back to it.

The source is never written. An older generation is built in a folder of its own and run from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import shutil
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.apply.archive import Archive
from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.entries import Change, Entry
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

MANY = 1000
"""Files whose copying leaves enough of unused memory to be worth a search for it."""

NEVER_LINKED = frozenset({".git", ".hg", ".svn", "__pycache__", ".mypy_cache", ".pytest_cache",
                          ".ruff_cache", ".hypothesis", ".tox", ".nox"})


def forget_unfinished(state_dir: str) -> None:
    """Remove what a killed session had begun to archive, or to build for going back."""
    trees = glob.glob(os.path.join(glob.escape(os.path.join(state_dir, TREES)), "*"))
    for path in trees:
        if not os.path.basename(path).isdigit():
            shutil.rmtree(path, ignore_errors=True)
    archive = os.path.join(state_dir, ARCHIVE)
    for path in glob.glob(os.path.join(glob.escape(archive), "*.new")):
        with contextlib.suppress(OSError):
            os.unlink(path)
    with contextlib.suppress(OSError):
        blobs.forget_unfinished(os.path.join(archive, "store"))


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

    def number(self) -> int:
        """See Base."""
        return self._archive.number

    async def learn(self, ready: Configured, link: Link) -> None:
        """In place the target holds nothing of its own; it may ask for an older tree."""
        async def locate(request: Any) -> Mapping[str, Any]:
            return {"root": await self.locate(int(request.body["number"]))}

        link.handle("locate", locate)

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
        else:
            self._archive.begin(number, after(live, changes))
        self._more.set()

    async def kept(self) -> list[int]:
        """See Base."""
        return list(self._archive.generations())

    async def prepare_rollback(self, number: int) -> Mapping[str, Any]:
        """Build the older generation. Raises ApplyError where it can't be had whole."""
        return {"root": await asyncio.to_thread(self._build, number)}

    async def locate(self, number: int) -> str | None:
        """A tree with the content of ``number``: the source while it is that, else one is built."""
        if number not in self._archive.generations():
            return None
        if not diff(self._archive.manifest(number), self._source.tree.manifest):
            return self._options.root
        try:
            return await asyncio.to_thread(self._build, number)
        except AgentError:
            return None

    def _build(self, number: int) -> str:
        dest = os.path.join(self._trees, str(number))
        if os.path.isdir(dest):
            # It may have been run, and written to, since it was built.
            aside = f"{dest}.old-{os.getpid()}"
            os.rename(dest, aside)
            shutil.rmtree(aside, ignore_errors=True)
        self._archive.checkout(number, dest, self._ignored_entries())
        return dest

    def _ignored_entries(self) -> dict[str, str]:
        """What lies in the source and isn't ours to keep, but what a program needs: ``.env``,
        environments, databases."""
        manifest = self._source.tree.manifest
        links: dict[str, str] = {}
        for folder in self._source.tree.dirs():
            absolute = os.path.join(self._options.root, folder)
            if os.path.isabs(folder) or not os.path.isdir(absolute):
                continue
            for name in os.listdir(absolute):
                path = f"{folder}/{name}" if folder else name
                if path not in manifest and name not in NEVER_LINKED:
                    links[path] = os.path.join(absolute, name)
        return links

    async def rolled_back(self, number: int, source: Source) -> list[str]:
        """See Base."""
        self._live = dict(self._archive.manifest(number))
        changes = diff(self._live, source.tree.manifest)
        source.rebase(changes)
        return [change.path for change in changes]

    async def run(self) -> None:
        """Copy what is not archived yet, a little at a time."""
        while True:
            await self._more.wait()
            self._more.clear()
            many = self._archive.pending > MANY
            try:
                while self._archive.record_some(self._source.tree.read, SLICE):
                    await self._clock.sleep(REST)
                self._archive.prune(self._options.keep)
                if many:
                    give_back_memory()
            except ApplyError:
                # No room for a way back; going forward needs none. The next generation tries anew.
                continue

    def close(self) -> None:
        """What is archived stays."""
