"""The link's way out: control frames first, then data, never more queued than agreed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from hyperbox_agent.core.frames import MAX_PAYLOAD, encode
from hyperbox_agent.errors import AgentError, LinkLostError, ProtocolError
from hyperbox_agent.link.flow import again
from hyperbox_agent.link.stream import ByteStream, DirectStream

DATA_LIMIT = 1 << 20
CONTROL_LIMIT = 4 << 20
"""Queued bytes above which senders wait."""
CONTROL_MOST = 64 << 20
"""Beyond it the peer has stopped reading while it makes us answer: the link is given up."""
BATCH = 256 * 1024


class Outbox:
    """Orders frames and writes them. ``lost`` is told when the stream takes no more."""

    def __init__(self, stream: ByteStream, lost: Callable[[AgentError], None]) -> None:
        self._stream = stream
        self._direct = stream if isinstance(stream, DirectStream) else None
        self._lost = lost
        self._control: deque[bytes] = deque()
        self._control_size = 0
        self._data: deque[bytes] = deque()
        self._data_size = 0
        self._pump: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._failed: AgentError | None = None

    def post(self, kind: int, channel: int, body: bytes = b"", *, behind: bytes = b"") -> None:
        """Queue a control frame, and whole frames that go out ``behind`` it in the same write.

        Never waits. Raises ProtocolError for a body over the limit.
        """
        if len(body) > MAX_PAYLOAD:
            raise ProtocolError(f"a message of {len(body)} bytes; the limit is {MAX_PAYLOAD}",
                                hint="what is longer goes as a payload")
        frame = encode(kind, channel, body) + behind
        if self._failed is not None:
            return  # the owner knows already: everything that waits for an answer was told
        left = self._at_once(frame)
        if not left:
            return
        self._control.append(left)
        self._control_size += len(left)
        if self._control_size > CONTROL_MOST:
            self.fail(LinkLostError("the peer has stopped reading"))
            return
        self._start()

    async def data(self, kind: int, channel: int, body: bytes | memoryview) -> None:
        """Queue a frame behind the data. Waits while too much of it is queued."""
        self._check()
        frame = encode(kind, channel, body)
        left = self._at_once(frame)
        if left is not frame and left:
            # The rest of a frame that is half out goes before everything.
            self._control.appendleft(left)
            self._control_size += len(left)
        elif left:
            self._data.append(left)
            self._data_size += len(left)
        if left:
            self._start()
            while self._data_size > DATA_LIMIT:
                await self._wait()

    async def room(self) -> None:
        """Return when control frames may be queued again."""
        self._check()
        while self._control_size > CONTROL_LIMIT:
            await self._wait()

    async def flush(self) -> None:
        """Return when everything is out."""
        while self._pump is not None and self._failed is None:
            await self._wait()

    def fail(self, error: AgentError) -> None:
        """Nothing more goes out; whoever waits gets ``error``."""
        if self._failed is not None:
            return
        self._failed = error
        self._control.clear()
        self._data.clear()
        if self._pump is not None:
            self._pump.cancel()
        self._wake()
        self._lost(error)

    def _at_once(self, frame: bytes) -> bytes:
        """What could not be written without waiting; the very ``frame`` when nothing could."""
        if self._direct is None or self._pump is not None:
            return frame
        try:
            count = self._direct.write_now(frame)
        except AgentError as error:
            self.fail(error)
            return b""
        return frame[count:] if count else frame

    def _start(self) -> None:
        if self._pump is None and self._failed is None:
            self._pump = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        try:
            while batch := self._take():
                await self._stream.write(batch)
                self._wake()
        except AgentError as error:
            self._pump = None
            self.fail(error)
        finally:
            self._pump = None
            self._wake()

    def _take(self) -> bytes:
        queue = self._control or self._data
        batch: list[bytes] = []
        size = 0
        while queue and (not batch or size + len(queue[0]) <= BATCH):
            frame = queue.popleft()
            batch.append(frame)
            size += len(frame)
        if queue is self._control:
            self._control_size -= size
        else:
            self._data_size -= size
        return batch[0] if len(batch) == 1 else b"".join(batch)

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter
        self._check()

    def _check(self) -> None:
        if self._failed is not None:
            raise again(self._failed)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
