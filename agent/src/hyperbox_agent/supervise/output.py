"""A program's output: read without loss, cut into lines; of a line no more than a part in memory.

The pipe itself is the buffer: while the consumer has no room nothing is read, and the program
waits in its own ``write``. The consumer is asked between two reads, so it must have room for all
the lines of one (64 KiB: up to 65,536 of them).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hyperbox_agent.core.clock import Clock

LINE_LIMIT = 65_536
QUIET = 0.2
"""Seconds after which an unfinished line (a prompt, a progress bar) is shown as it is."""
_READ = 65_536


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a stream, without its end."""

    text: str
    partial: bool = False
    """Not finished yet: a later line that begins with this text takes its place."""
    cut: bool = False
    """Longer than ``LINE_LIMIT``: the next line goes on where this one stops."""


class LineSplitter:
    """Bytes in, lines out. Pure; keeps at most ``limit`` bytes."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Line]:
        """The lines that are complete with ``data``."""
        *whole, rest = data.split(b"\n")
        out: list[Line] = []
        for part in whole:
            self._rest += part
            out.extend(self._cut())
            out.append(Line(_text(self._rest.removesuffix(b"\r"))))
            self._rest.clear()
        self._rest += rest
        out.extend(self._cut())
        return out

    def peek(self) -> Line:
        """The unfinished line as it is now."""
        return Line(_text(self._rest), partial=True)

    def end(self) -> Line | None:
        """The last line, where the stream ended without a newline."""
        if not self._rest:
            return None
        line = Line(_text(self._rest))
        self._rest.clear()
        return line

    def _cut(self) -> list[Line]:
        out = []
        while len(self._rest) > self._limit:
            at = _boundary(self._rest, self._limit)
            out.append(Line(_text(self._rest[:at]), cut=True))
            del self._rest[:at]
        return out


def _boundary(data: bytearray, at: int) -> int:
    """The last place at or before ``at`` that is not inside a UTF-8 character."""
    for back in range(4):
        if data[at - back] & 0xC0 != 0x80:
            return at - back
    return at


def _text(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "replace")


Emit = Callable[[str, Line], None]
"""Takes a stream's name and a line."""

Room = Callable[[], Awaitable[None]]
"""Returns when the consumer has room for more."""


class Pump:
    """Reads one descriptor to its end and hands on its lines. Owns the descriptor."""

    def __init__(self, fd: int, stream: str, emit: Emit, clock: Clock, *,
                 room: Room | None = None) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self.stream = stream
        self._emit = emit
        self._clock = clock
        self._room = room
        self._splitter = LineSplitter()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._waiting: asyncio.Task[None] | None = None
        self._quiet: asyncio.Task[None] | None = None
        self._reads = 0
        self._shown = ""
        self._loop.add_reader(fd, self._readable)

    @property
    def fd(self) -> int:
        """The descriptor; -1 when all is read."""
        return self._fd

    async def drained(self, seconds: float) -> bool:
        """Wait until all is read, ``seconds`` at most: a grandchild may hold the other end open.

        What has come is handed on either way, an unfinished line too; reading goes on.
        """
        if not self._ended.done():
            limit = self._loop.create_task(self._clock.sleep(seconds))
            await asyncio.wait({self._ended, limit}, return_when=asyncio.FIRST_COMPLETED)
            limit.cancel()
        if self._ended.done():
            return True
        self._show_partial()
        return False

    def close(self) -> None:
        """Read what is there without waiting, hand on the last line, and close."""
        while self._fd >= 0 and self._read_once():
            pass
        self._end()

    def give_up(self) -> int:
        """Stop reading and hand the descriptor to the caller, nothing of it closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._loop.remove_reader(fd)
        self._end()
        return fd

    def _readable(self) -> None:
        if not self._read_once():
            return
        if self._room is not None:
            self._loop.remove_reader(self._fd)
            self._waiting = self._loop.create_task(self._wait_for_room(self._room))

    async def _wait_for_room(self, room: Room) -> None:
        await room()
        self._waiting = None
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)

    def _read_once(self) -> bool:
        """Read and hand on once. False: nothing there now, or the end."""
        try:
            data = os.read(self._fd, _READ)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            # EIO is how a terminal says that its last process has gone.
            data = b""
        if not data:
            self._end()
            return False
        self._reads += 1
        for line in self._splitter.feed(data):
            self._hand_on(line)
        if self._splitter.unfinished and self._quiet is None:
            self._quiet = self._loop.create_task(self._watch_quiet())
        return True

    def _hand_on(self, line: Line) -> None:
        self._shown = ""
        self._emit(self.stream, line)

    def _show_partial(self) -> None:
        if not self._splitter.unfinished:
            return
        line = self._splitter.peek()
        if line.text != self._shown:
            self._emit(self.stream, line)
            self._shown = line.text

    async def _watch_quiet(self) -> None:
        while self._splitter.unfinished:
            seen = self._reads
            await self._clock.sleep(QUIET)
            if self._reads == seen:
                self._show_partial()
                break
        self._quiet = None

    def _end(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        for task in (self._quiet, self._waiting):
            if task is not None:
                task.cancel()
        self._quiet = self._waiting = None
        last = self._splitter.end()
        if last is not None:
            self._hand_on(last)
        if not self._ended.done():
            self._ended.set_result(None)
