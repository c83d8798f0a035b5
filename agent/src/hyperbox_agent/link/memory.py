"""A stream in memory with hooks for what goes wrong: for tests, and for the memory target."""

from __future__ import annotations

import asyncio
from collections import deque

from hyperbox_agent.errors import LinkLostError
from hyperbox_agent.link.stream import READ_SIZE

BUFFER = 1 << 20


class MemoryStream:
    """One end of a pair. The hooks act on this end and may be called at any time."""

    def __init__(self) -> None:
        self._peer: MemoryStream = self
        self._inbound: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._peer_ended = False
        self._closed = False
        self._broken: LinkLostError | None = None
        self._stalled = False
        self._cut: int | None = None
        self._piece: int | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.written = 0
        """Bytes that this end has written so far."""

    def fail_now(self, message: str = "the stream broke") -> None:
        """What waits on this end raises LinkLostError, and so does all that follows; the other
        side reads an end."""
        self._broken = LinkLostError(message)
        self._peer._peer_ended = True
        self._ring()
        self._peer._ring()

    def stall(self) -> None:
        """Reads and writes of this end wait until ``go_on``: a peer that is there but dumb."""
        self._stalled = True

    def go_on(self) -> None:
        """The end of ``stall``."""
        self._stalled = False
        self._ring()

    def cut_after(self, count: int) -> None:
        """The stream breaks when this end has written ``count`` more bytes; those arrive."""
        self._cut = count

    def pieces(self, size: int | None) -> None:
        """Reads of this end give at most ``size`` bytes; None: as much as is there."""
        self._piece = size

    async def read(self, n: int = READ_SIZE) -> bytes:
        """See ByteStream."""
        while True:
            self._check()
            if not self._stalled:
                if self._inbound:
                    return self._take(min(n, self._piece or n))
                if self._peer_ended:
                    return b""
            await self._wait()

    async def write(self, data: bytes) -> None:
        """See ByteStream."""
        view = memoryview(data)
        while True:
            self._check()
            if self._ended:
                raise LinkLostError("the stream was closed for writing")
            if self._peer._closed:
                raise LinkLostError("the other side reads no more")
            if not view:
                return
            room = 0 if self._stalled else BUFFER - self._peer._held
            if room > 0:
                view = view[self._put(view[:room]):]
            else:
                await self._wait()

    async def end(self) -> None:
        """See ByteStream."""
        self._ended = True
        self._peer._peer_ended = True
        self._peer._ring()

    async def close(self) -> None:
        """See ByteStream."""
        self._closed = True
        self._peer._peer_ended = True
        self._ring()
        self._peer._ring()

    def _put(self, part: memoryview) -> int:
        if self._cut is not None:
            part = part[:self._cut]
            self._cut -= len(part)
        if part:
            self._peer._inbound.append(bytes(part))
            self._peer._held += len(part)
            self.written += len(part)
        if self._cut == 0:
            self.fail_now("the stream was cut")
        self._peer._ring()
        return len(part)

    def _take(self, n: int) -> bytes:
        data = self._inbound.popleft()
        if len(data) > n:
            self._inbound.appendleft(data[n:])
            data = data[:n]
        self._held -= len(data)
        self._peer._ring()
        return data

    def _check(self) -> None:
        if self._closed:
            raise LinkLostError("the stream was closed")
        if self._broken is not None:
            raise LinkLostError(self._broken.message)

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _ring(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def memory_pair() -> tuple[MemoryStream, MemoryStream]:
    """Two ends of one stream, each with its hooks."""
    here, there = MemoryStream(), MemoryStream()
    here._peer, there._peer = there, here
    return here, there
