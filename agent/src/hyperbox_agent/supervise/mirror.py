"""The stage of a target that has a tree of its own: content is verified, applied, undone.

The tree's calls block for as long as the disk takes, so they are made in a thread of their own, one
at a time, while the loop goes on serving.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from hyperbox_agent.apply.stage import Staged, Stager
from hyperbox_agent.apply.tree import Applied, Tree
from hyperbox_agent.apply.written import Written
from hyperbox_agent.core import delta
from hyperbox_agent.core.bundle import BundleReader
from hyperbox_agent.core.entries import Change, Entry, Kind, Manifest
from hyperbox_agent.errors import AgentError, BaseChangedError, MissingBlobsError
from hyperbox_agent.store.collector import collector_paused
from hyperbox_agent.store.pruning import Keep
from hyperbox_agent.supervise.supervisor import Supervisor
from hyperbox_agent.supervise.transaction import Permit, Work, changed_files

T = TypeVar("T")

NAMED = 50
"""So many paths that were not as we had left them are named at most."""

AT_ONCE = 1 << 20
"""Bytes that are given to the tree's thread in one go: each costs two changes of threads."""

Record = tuple[bytes, bytes]
"""A digest, and what its content is to be made of."""


class Mirror:
    """One tree and its home. Lives on one event loop; the tree itself in one thread."""

    shares_tree = False

    def __init__(self, root: str, home: str, *, session: str, keep: Keep) -> None:
        """Opens the tree and finishes what a killed agent had begun. Raises ApplyError."""
        self._root = root
        self._tree = Tree(root, home, session=session, keep=keep)
        recovered = self._tree.recover()
        self.state = recovered.state.value
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tree")
        self._staged: Staged | None = None
        self._applied: Applied | None = None

    @property
    def base(self) -> int:
        """The generation that the tree holds; 0: none."""
        return self._tree.number

    async def close(self) -> None:
        """Let another agent have the tree, when all that was begun in it has ended."""
        await self._do(self._tree.close)
        self._thread.shutdown(wait=False)

    async def manifest(self) -> Manifest:
        """What the tree holds of what was put there, as it is now. Looks at all of it."""
        return await self._do(self._tree.manifest)

    @property
    def recorded(self) -> Manifest:
        """What was put there."""
        return self._tree.recorded

    async def kept(self) -> Sequence[int]:
        """The generations that one can go back to."""
        return await self._do(self._tree.generations)

    def keep(self, keep: Keep) -> None:
        """What stays of the older generations from now on."""
        self._tree.keep = keep

    def foreign(self) -> Sequence[str]:
        """Files in the tree that were not put there."""
        return self._tree.foreign()

    async def missing(self, digests: Sequence[bytes]) -> list[bytes]:
        """Which of these contents are not here."""
        return list(await self._do(lambda: self._tree.lacks(digests)))

    async def ahead(self, files: Sequence[tuple[Entry, memoryview]]) -> None:
        """Files of the first batch before that is known. Raises ApplyError in a tree that holds
        something, StoreError, NoSpaceError."""
        await self._do(lambda: self._tree.ahead(files))

    async def drop_ahead(self) -> None:
        """What came ahead was of a session that is gone."""
        await self._do(self._tree.early.close)

    async def complete(self, count: int, changes: Sequence[Change]) -> tuple[Change, ...]:
        """A first batch with the ``count`` files that came ahead of it, which ``changes`` name only
        where they are otherwise by now. Raises MissingBlobsError where they are not here."""
        return await self._do(lambda: self._tree.early.complete(count, changes))

    async def written(self, look: Written) -> tuple[Manifest, Manifest]:
        """What was put at pulled paths, and what stands there now."""
        return await self._do(lambda: self._tree.written(look))

    async def adopt(self, entries: Sequence[Entry]) -> None:
        """The source has these as the program wrote them: they are part of what was put here."""
        await self._do(lambda: self._tree.adopt(entries))

    async def rollback_changes(self, number: int) -> tuple[Change, ...]:
        """What leads back to generation ``number``. Raises ApplyError when it is not kept."""
        return await self._do(lambda: self._tree.rollback(number))

    async def lead_back(self, number: int, supervisor: Supervisor) -> None:
        """Make the tree ``number``'s, which serves: a killed agent had put a newer batch into it
        that never was healthy. Where that can't be had, the session sends what is missing."""
        if number == self.base or number not in await self.kept():
            return
        permit = Permit()
        permit.settle()
        try:
            work = Work(number, await self.rollback_changes(number), permit)
            await self.prepare(work)
            await self.apply(work, supervisor)
        except AgentError:
            return
        self.commit(work)

    # -- the stage of a transaction -----------------------------------------------------------

    def check_base(self, work: Work) -> None:
        """Changes lead to what the source holds only from what they were computed against."""
        if work.base is not None and work.base != self.base:
            raise BaseChangedError(
                f"the target holds #{self.base}, not #{work.base}: what is there is asked anew",
                base=work.base, holds=self.base)

    async def prepare(self, work: Work) -> None:
        """Take the content as it comes, verify it, and lay it out beside the tree."""
        self._staged = self._applied = None
        stager = await self._do(lambda: self._tree.begin(work.number, work.changes))
        sizes = {change.new.digest: change.new.size for change in work.changes
                 if change.new is not None and change.new.kind is Kind.FILE}
        add = partial(self._add, stager, sizes)
        try:
            last = () if work.blobs is None else await self._take(work.blobs, add)
            self._staged = await self._do(partial(self._complete, stager, sizes, last))
        except BaseException:
            await self._do(stager.abandon)
            raise
        work.facts["staged_bytes"] = self._staged.bytes

    async def _take(self, blobs: AsyncIterator[bytes],
                    add: Callable[[Sequence[Record]], None]) -> Sequence[Record]:
        """Give records to the tree's thread as they come; those that it was not given yet.

        It lays out one batch of them while the next is received.
        """
        reader, records, size = BundleReader(), [], 0
        adding: asyncio.Future[None] | None = None
        try:
            async for piece in blobs:
                records += reader.feed(piece)
                size += len(piece)
                if size < AT_ONCE:
                    continue
                if adding is not None:
                    await adding
                adding = asyncio.ensure_future(self._do(partial(add, records)))
                records, size = [], 0
            reader.end()
        finally:
            if adding is not None:
                await asyncio.wait([adding])
        if adding is not None:
            adding.result()
        return records

    def _complete(self, stager: Stager, sizes: dict[bytes, int],
                  records: Sequence[Record]) -> Staged:
        self._add(stager, sizes, records)
        return stager.finish()

    def _add(self, stager: Stager, sizes: dict[bytes, int], records: Sequence[Record]) -> None:
        with collector_paused():
            for digest, record in records:
                old = delta.old_digest(record)
                content = None if old is None else self._tree.content(old)
                if old is not None and content is None:
                    raise MissingBlobsError("the base of a delta is not here", digests=(old,))
                stager.add(digest, delta.decode(record, content, size=sizes.get(digest)))

    def gate_files(self, work: Work) -> Sequence[tuple[str, str]]:
        """The staged files."""
        staged = self._staged
        if staged is None:
            return ()
        files = ((path, staged.file(path)) for path in changed_files(work.changes))
        return [(path, place) for path, place in files if place is not None]

    def untouched(self, work: Work) -> bool:
        """What was gated is what was applied: nobody else writes there."""
        return True

    async def apply(self, work: Work, supervisor: Supervisor) -> str:
        """Wait for quiet, then put the batch into the tree while the program stands still."""
        if not await work.permit.wait() or self._staged is None:
            return self._root
        staged = self._staged
        self._staged = None
        freeze = self._freezer(work, supervisor)
        self._applied = await self._do(lambda: self._tree.apply(staged, freeze=freeze))
        work.facts.update(renames=self._applied.renames, frozen_ms=round(self._applied.ms, 3))
        if self._applied.left:
            work.facts["left"] = list(self._applied.left[:NAMED])
        if self._applied.kept:
            work.facts["kept"] = {one.path: one.where for one in self._applied.kept[:NAMED]}
        return self._root

    def _freezer(self, work: Work, supervisor: Supervisor) -> Callable[[], Any]:
        """The supervisor's ``quiet``, to be entered from the tree's thread."""
        loop = asyncio.get_running_loop()

        @contextmanager
        def freeze() -> Iterator[None]:
            quiet = supervisor.quiet()
            facts = asyncio.run_coroutine_threadsafe(quiet.__aenter__(), loop).result()
            try:
                yield
            finally:
                asyncio.run_coroutine_threadsafe(
                    quiet.__aexit__(None, None, None), loop).result()
                work.facts.setdefault("quiet", facts)

        return freeze

    async def undo(self, work: Work, supervisor: Supervisor) -> None:
        """The tree as it was before the batch; the old version still serves."""
        applied, self._applied = self._applied, None
        if applied is None:
            self.discard(work)
            return
        freeze = self._freezer(work, supervisor)
        await self._do(lambda: self._tree.undo(applied, freeze=freeze))

    def commit(self, work: Work) -> None:
        """What the batch replaced goes to the store, in the background."""
        applied, self._applied = self._applied, None
        if applied is not None:
            self._thread.submit(self._finish, applied)

    def _finish(self, applied: Applied) -> None:
        try:
            self._tree.commit(applied)
        except AgentError:
            # The next batch commits it first, and says what is wrong where somebody listens.
            return

    def discard(self, work: Work) -> None:
        """The batch won't be applied; its content stays for a while, for its next try."""
        staged, self._staged = self._staged, None
        if staged is not None:
            self._thread.submit(self._tree.discard, staged)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
