"""Credit: how much of a payload is on the way, so that a slow reader stops only its own writer.

Each direction of a channel has a window. The writer spends it byte by byte, the reader gives it
back as it consumes. What the link itself must hold is therefore bounded by the windows, and frames
of other channels and all control frames pass by.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Protocol

from hyperbox_agent.core.frames import MAX_PAYLOAD, encode
from hyperbox_agent.errors import AgentError, ProtocolError
from hyperbox_agent.link import kinds

U64 = struct.Struct(">Q")
NOTES = 256
"""Notes that may wait unread on a channel."""


def whole(channel: int, data: bytes) -> bytes:
    """The frames of a payload that fits one of them and the window of its channel."""
    return encode(kinds.DATA, channel, data) + encode(kinds.END, channel, U64.pack(len(data)))


class Port(Protocol):
    """Where an outlet's frames go: the link's way out, for one channel."""

    async def data(self, kind: int, channel: int, body: bytes | memoryview) -> None:
        """Queue a frame behind the other data; waits while too much is queued."""
        ...


class Outlet:
    """The sending half of a channel."""

    def __init__(self, port: Port, channel: int, window: int) -> None:
        self._port = port
        self._channel = channel
        self._credit = window
        self._total = 0
        self._stopped: AgentError | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.ended = False

    def grant(self, count: int) -> None:
        """The reader has consumed ``count`` bytes."""
        self._credit += count
        self._wake()

    def stop(self, error: AgentError) -> None:
        """Nobody reads any more: whoever sends gets ``error``."""
        self._stopped = self._stopped or error
        self._wake()

    async def send(self, data: bytes | memoryview, kind: int = kinds.DATA) -> None:
        """Return when all of ``data`` is on its way. Raises what ``stop`` said."""
        view = memoryview(data)
        while view:
            piece = view[:await self._allowance(min(len(view), kinds.CHUNK))]
            self._credit -= len(piece)
            self._total += len(piece)
            await self._port.data(kind, self._channel, piece)
            view = view[len(piece):]

    async def note(self, body: bytes) -> None:
        """A note, in its place among the data."""
        self._check()
        if len(body) > MAX_PAYLOAD // 16:
            raise ProtocolError(f"a note of {len(body)} bytes is too long")
        await self._port.data(kinds.NOTE, self._channel, body)

    async def end(self) -> None:
        """The payload is whole."""
        if not self.ended:
            self.ended = True
            self._check()
            await self._port.data(kinds.END, self._channel, U64.pack(self._total))

    async def abort(self, error: bytes) -> None:
        """The payload stops here and is not whole."""
        if not self.ended and self._stopped is None:
            self.ended = True
            await self._port.data(kinds.ABORT, self._channel, error)

    async def _allowance(self, wanted: int) -> int:
        self._check()
        while self._credit <= 0:
            # Several may wait: a command's output and its errors share the credit of a channel.
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
            self._check()
        return min(wanted, self._credit)

    def _check(self) -> None:
        if self._stopped is not None:
            raise again(self._stopped)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Inlet:
    """The receiving half of a channel. ``grant`` is called with the bytes to give back."""

    def __init__(self, window: int, grant: Callable[[int], None]) -> None:
        self._window = window
        self._allowed = window
        self._owed = 0
        self._grant = grant
        self._items: deque[tuple[int, bytes]] = deque()
        self._notes = 0
        self._received = 0
        self._error: AgentError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.ended = False
        """All of it has arrived (not: was read)."""

    def feed(self, kind: int, body: bytes) -> None:
        """A frame has arrived. Raises ProtocolError when the peer sends more than it may."""
        if self.ended:
            raise ProtocolError("a channel goes on behind its end")
        if kind == kinds.NOTE:
            self._notes += 1
            if self._notes > NOTES:
                raise ProtocolError(f"more than {NOTES} unread notes on one channel")
        else:
            self._allowed -= len(body)
            self._received += len(body)
            if self._allowed < 0 or len(body) > kinds.CHUNK:
                raise ProtocolError("the peer sends more than it has credit for")
        self._items.append((kind, body))
        self._wake()

    def end(self, body: bytes) -> None:
        """The end mark has arrived. Raises ProtocolError when it does not fit what came."""
        if len(body) != U64.size or U64.unpack(body)[0] != self._received or self.ended:
            raise ProtocolError("the end of a payload does not fit what arrived of it")
        self.ended = True
        self._wake()

    def fail(self, error: AgentError) -> None:
        """It won't be whole: readers get ``error``, also where bytes still wait.

        Nothing happens to one that has arrived in full: it may still be read.
        """
        if not self.ended and self._error is None:
            self._error = error
            self._items.clear()
            self._wake()

    def take(self, *, owed: bool = False) -> tuple[int, bytes] | None:
        """The next frame as (kind, body) where one is there. Raises what ``fail`` said.

        ``owed``: its bytes are not consumed yet; ``give_back`` says when they are. So the reader
        may look at every note at once, and yet holds no more than a window.
        """
        if self._error is not None:
            raise again(self._error)
        if not self._items:
            return None
        kind, body = self._items.popleft()
        if kind == kinds.NOTE:
            self._notes -= 1
        elif not owed:
            self.give_back(len(body))
        return kind, body

    async def get(self, *, owed: bool = False) -> tuple[int, bytes] | None:
        """The next frame as (kind, body), None at the end; see ``take``."""
        while not self.finished:
            item = self.take(owed=owed)
            if item is not None:
                return item
            if self._waiter is not None:
                raise RuntimeError("two readers on one payload")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return None

    @property
    def finished(self) -> bool:
        """All of it has arrived and was read."""
        return self.ended and not self._items

    def give_back(self, count: int) -> None:
        """So many bytes were consumed: the writer may send as many more."""
        self._owed += count
        # Given back in quarters: a credit frame for each small piece would double the frames.
        if self._owed * 4 >= self._window and not self.ended:
            self._allowed += self._owed
            self._grant(self._owed)
            self._owed = 0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def again(error: AgentError) -> AgentError:
    """A copy to raise: one exception raised in several tasks would mix their tracebacks."""
    copy = type(error).__new__(type(error), error.message)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy
