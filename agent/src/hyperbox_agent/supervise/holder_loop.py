"""The port holder's event loop: one poll object, one heap of timers.

asyncio would cost the holder 50 ms at start, 8 MB, and half of the relay's price, and offers here
nothing that 100 lines do not.
"""

from __future__ import annotations

import heapq
import select
import sys
import time
from collections.abc import Callable

IN = 1
OUT = 4
"""The poll bits, the same for epoll and poll. Errors and hang-ups come unasked, as other bits."""

GONE = getattr(select, "EPOLLRDHUP", 0)
"""To be told that the peer sends no more, of a connection that is not read for now."""

_NEVER = 3600.0


class Timer:
    """A call in the future; ``cancel`` is free."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Never call it."""
        self.action = None


class _Poller:
    """``select.poll`` with the times of ``select.epoll``, where there is no epoll."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        return self._poll.poll(seconds * 1000)

    def close(self) -> None:
        """Nothing to give back."""


class Loop:
    """Calls handlers of ready descriptors and due timers until ``stop``."""

    __slots__ = ("_handlers", "_order", "_poller", "_running", "_timers", "now")

    def __init__(self, *, plain: bool = False) -> None:
        epoll = None if plain else getattr(select, "epoll", None)
        self._poller = _Poller() if epoll is None else epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = 0
        self._running = False
        self.now = time.monotonic()
        """The time of this turn; good enough for everything but a measurement."""

    def watch(self, fd: int, bits: int, handler: Callable[[int], None]) -> None:
        """Call ``handler(bits)`` whenever ``fd`` is ready. Level-triggered."""
        self._handlers[fd] = handler
        self._poller.register(fd, bits)

    def change(self, fd: int, bits: int) -> None:
        """Wait for other bits of a watched ``fd``."""
        self._poller.modify(fd, bits)

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``; before it is closed, for epoll holds on to what other processes share."""
        if self._handlers.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call ``action`` after ``seconds``."""
        timer = Timer(action)
        self._order += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._order, timer))
        return timer

    def stop(self) -> None:
        """Return from ``run`` after this turn."""
        self._running = False

    def run(self) -> None:
        """Serve until ``stop``."""
        self._running = True
        poll, handlers = self._poller.poll, self._handlers
        while self._running:
            ready = poll(self._patience() if self._timers else _NEVER)
            self.now = time.monotonic()
            for fd, bits in ready:
                # A descriptor closed and opened again earlier in this turn gets a stale event:
                # every handler takes an event as a hint and may find nothing to read.
                handler = handlers.get(fd)
                if handler is None:
                    continue
                try:
                    handler(bits)
                except Exception:  # noqa: BLE001
                    _report()
                    self.unwatch(fd)
            if self._timers:
                self._run_due()
        self._poller.close()

    def _patience(self) -> float:
        timers = self._timers
        while timers and timers[0][2].action is None:
            heapq.heappop(timers)
        return max(0.0, timers[0][0] - time.monotonic()) if timers else _NEVER

    def _run_due(self) -> None:
        timers = self._timers
        now = time.monotonic()
        while timers and timers[0][0] <= now:
            action = heapq.heappop(timers)[2].action
            if action is None:
                continue
            try:
                action()
            except Exception:  # noqa: BLE001
                _report()


def _report() -> None:
    """A fault of ours in one connection goes to the log; it must not reset all the others."""
    sys.excepthook(*sys.exc_info())
