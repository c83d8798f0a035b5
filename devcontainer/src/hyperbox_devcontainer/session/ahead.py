"""Shipping ahead: what the first scan reads goes to an empty target at once.

Else the target would wait until all is read, and everything would be read twice. It is no more than
a saving of time: whatever is not there is part of the generation as always.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.entries import Entry
from hyperbox_agent.errors import AgentError
from hyperbox_agent.link.ahead import pack_files
from hyperbox_agent.link.connection import Link
from hyperbox_agent.supervise.limits import first_of

CALL = 1 << 20
"""Bytes of content that make a call."""
OVERHEAD = 128
"""What a file counts beside its content: empty ones are something to be sent, too."""
CALLS = 4
"""Calls that are on their way at the same time."""
QUEUE = 16 << 20
"""Bytes that wait here at most: what the target works on while the generation is put together."""
PATIENCE = 5.0
"""Seconds that the scan waits for a slow target in all; then it goes on without this."""


class Ahead:
    """One first sync. Lives on one event loop; a ``Reading`` of the source."""

    def __init__(self, clock: Clock, *, compress: bool) -> None:
        self._clock = clock
        self._compress = compress
        self._link: Link | None = None
        self._queue: deque[tuple[Entry, bytes]] = deque()
        self._size = 0
        self._taken: set[bytes] = set()
        """Contents that were sent: a second file of the same is not worth it."""
        self._sent: dict[str, Entry] = {}
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._patience = PATIENCE
        self._over = False
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self.bytes = 0
        """What was sent."""

    def take(self, entry: Entry, data: bytes) -> None:
        """See Reading. Nothing is taken beyond QUEUE."""
        size = len(data) + OVERHEAD
        if self._over or self._size + size > QUEUE or entry.digest in self._taken:
            return
        self._taken.add(entry.digest)
        self._queue.append((entry, data))
        self._size += size
        if self._size >= CALL:
            self._more.set()

    async def room(self) -> None:
        """See Reading."""
        if self._over or self._size < QUEUE // 2:
            await asyncio.sleep(0)
            return
        began = self._clock.now()
        self._room.clear()
        await first_of(self._clock, self._patience, self._room.wait())
        self._patience -= self._clock.now() - began
        if self._patience <= 0:
            self.end()

    @property
    def begun(self) -> bool:
        """Whether there is a target that takes it."""
        return self._link is not None

    def begin(self, link: Link) -> None:
        """The target is there and holds nothing: send."""
        self._link = link
        self._task = asyncio.ensure_future(self._run(link))

    def end(self) -> None:
        """The scan is over: nothing more comes."""
        self._over = True
        self._more.set()
        self._room.set()

    def decline(self) -> None:
        """Nobody takes it: what waits is not kept for a generation that may never come."""
        self.end()
        self._queue.clear()
        self._taken.clear()
        self._size = 0

    async def sent(self) -> Mapping[str, Entry]:
        """Return when the target has all that was taken, with that; empty where it refused some."""
        self.end()
        if self._task is not None:
            await self._task
        await asyncio.gather(*self._calls)
        return self._sent

    async def close(self) -> None:
        """Leave nothing under way, and keep nothing."""
        self.decline()
        tasks = [task for task in (self._task, *self._calls) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._sent = {}

    async def _run(self, link: Link) -> None:
        while not (self._over and not self._queue):
            if self._size < CALL and not self._over:
                self._more.clear()
                await self._more.wait()
                continue
            if len(self._calls) >= CALLS:
                await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
                continue
            files = self._gather()
            task = asyncio.ensure_future(self._call(link, files))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            if self._size < QUEUE // 2:
                self._room.set()

    def _gather(self) -> list[tuple[Entry, bytes]]:
        files: list[tuple[Entry, bytes]] = []
        size = 0
        while self._queue and size < CALL:
            entry, data = self._queue.popleft()
            size += len(data) + OVERHEAD
            self._sent[entry.path] = entry
            files.append((entry, data))
        self._size -= size
        return files

    async def _call(self, link: Link, files: list[tuple[Entry, bytes]]) -> None:
        body, payload = pack_files(files, compress=self._compress)
        self.bytes += len(payload)
        try:
            await link.call("ahead", body, payload, timeout=None)
        except AgentError:
            # The generation meets the same, and says it where somebody listens.
            self._sent = {}
            self.decline()
