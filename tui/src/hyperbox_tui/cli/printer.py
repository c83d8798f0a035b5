"""What `up` writes: events as lines, in a thread, so that a terminal that stands still (Ctrl-S, a
slow pipe) never holds up the session. It reads the ring like any client: what it could not write in
time is counted, not kept.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import queue
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from hyperbox_devcontainer.verbs.ring import EventRing
from hyperbox_tui.cli.eventlines import EventLines
from hyperbox_tui.cli.output import Output
from hyperbox_tui.view.spans import Span, paint
from hyperbox_tui.view.text import json_text

DRAIN_SECONDS = 2.0
STDOUT = 1


class Printer:
    """Follows a ring on behalf of the person in front of `up`."""

    def __init__(self, out: Output, ring: EventRing, root: str) -> None:
        self.broken = asyncio.Event()
        """Set when the reader of our output has gone."""
        self._out = out
        self._ring = ring
        self._lines = EventLines(out.style, root)
        self._pipe = _Pipe()
        self._position = 0
        self._task: asyncio.Task[None] | None = None
        self._silent = False

    def start(self, first: Iterable[Sequence[Span]]) -> None:
        """Begin, with the lines that stand before all events."""
        lines = [] if self._out.as_json else [paint(line, self._out.style) for line in first]
        self._task = asyncio.ensure_future(self._follow("".join(f"{line}\n" for line in lines)))

    async def _follow(self, first: str) -> None:
        await self._write(first)
        while True:
            await self._ring.wait(self._position)
            await self._write_new()

    async def _write_new(self) -> None:
        while self._position < self._ring.last:
            read = self._ring.read(self._position)
            self._position = read.position
            events = [json.loads(kept.tail) for kept in read.events]
            await self._write(self._text(events, read.lost))

    def _text(self, events: list[dict[str, Any]], lost: int) -> str:
        if self._out.as_json:
            gap = [{"event": "lost", "count": lost}] if lost else []
            return "".join(json.dumps(json_text(event)) + "\n" for event in (*gap, *events))
        lines = [self._lines.lost(lost)] if lost else []
        for event in events:
            lines += self._lines.of(event)
        return "".join(f"{line}\n" for line in lines)

    async def _write(self, text: str) -> None:
        if not text or self._silent:
            return
        try:
            await self._pipe.write(text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._silent = True
            # EIO: the terminal has gone and its SIGHUP, which decides, is on its way.
            if error.errno != errno.EIO:
                self.broken.set()

    def say_stopping(self, *, again: bool) -> None:
        """Answer a Ctrl-C at once."""
        if not self._out.as_json:
            self._ring.append({"event": "stopping", "again": again})

    def terminal_lost(self) -> None:
        """Nobody reads any more."""
        self._silent = True

    async def close(self) -> None:
        """Write what is left, but wait no longer than a reader may need."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._write_new()
        except TimeoutError:
            return


class _Pipe:
    """Standard output written by a thread of its own, one piece at a time.

    Not sys.stdout: a thread that hangs in its lock would hang the interpreter's end as well.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def write(self, data: bytes) -> None:
        """Return when all is written. Raises OSError."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True,
                                            args=(asyncio.get_running_loop(),))
            self._thread.start()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._work.put((data, done))
        await done

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            data, done = self._work.get()
            error = _write_all(data)
            try:
                loop.call_soon_threadsafe(_settle, done, error)
            except RuntimeError:
                return  # the loop has been closed: we are leaving


def _settle(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def _write_all(data: bytes) -> OSError | None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(STDOUT, view):]
        except BlockingIOError:
            # Somebody who shares the terminal made it non-blocking.
            import select
            select.select([], [STDOUT], [])
        except OSError as error:
            return error
    return None


