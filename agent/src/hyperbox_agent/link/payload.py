"""Payloads: the bytes that go with a call or a reply, as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import ProtocolError
from hyperbox_agent.link.flow import Inlet
from hyperbox_agent.link.timers import within


class Payload:
    """The receiving side of a payload: an async iterator of pieces that can be read once.

    It ends only when all of it has arrived; a cut one raises (LinkLostError, LinkTimeoutError, or
    the error that its sender had), so what was read to the end is whole.
    """

    def __init__(self, inlet: Inlet | None, clock: Clock, patience: float | None,
                 close: Callable[[], Awaitable[None]] | None = None) -> None:
        self._inlet = inlet
        self._clock = clock
        self._patience = patience
        self._close = close
        self._kept = b""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece, never empty."""
        piece = await self._next()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes. Raises ProtocolError where the payload is shorter."""
        held = [self._kept]
        size, self._kept = len(self._kept), b""
        while size < count:
            piece = await self._next()
            if not piece:
                raise ProtocolError(f"a payload of {size} bytes where {count} were announced")
            held.append(piece)
            size += len(piece)
        data = b"".join(held)
        self._kept = data[count:]
        return data[:count]

    async def read(self, limit: int = 64 << 20) -> bytes:
        """All of it. Raises ProtocolError when it is longer than ``limit``."""
        held: list[bytes] = []
        size = 0
        async for piece in self:
            held.append(piece)
            size += len(piece)
            if size > limit:
                await self.aclose()
                raise ProtocolError(f"a payload of more than {limit} bytes")
        return b"".join(held)

    async def aclose(self) -> None:
        """Don't want the rest: the sender is told."""
        if self._close is not None:
            await self._close()

    async def _next(self) -> bytes:
        if self._kept:
            kept, self._kept = self._kept, b""
            return kept
        while self._inlet is not None:
            item = self._inlet.take()
            if item is None and not self._inlet.finished:
                item = await within(self._clock, self._patience, self._inlet.get(), "a payload")
            if item is None:
                break
            if item[1]:
                return item[1]
        await self.aclose()
        return b""
