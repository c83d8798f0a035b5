"""What the port holder knows of each instance: where it listens, what is in flight, its counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperbox_agent.supervise.holder_conversation import Conversation
    from hyperbox_agent.supervise.holder_end import End
    from hyperbox_agent.supervise.holder_loop import Loop, Timer

_RATE_SECONDS = 10


class Instance:
    """One address that answers, under the number of the generation that runs there."""

    __slots__ = (
        "address", "bytes", "draining", "failed", "inflight", "keeps_open",
        "longest_wait", "number", "refused_since", "requests",
    )

    def __init__(self, number: int, address: tuple[str, int]) -> None:
        self.number = number
        self.address = address
        self.inflight: set[Conversation] = set()
        self.requests = 0
        self.failed = 0
        self.bytes = 0
        self.longest_wait = 0.0
        self.refused_since: float | None = None
        self.draining: Drain | None = None
        self.keeps_open = False
        """It was asked to close a connection and did not: it is not waited for again."""

    def let_close(self, end: End) -> None:
        """Close ``end`` after the instance has; at once where it is one that never does."""
        if self.keeps_open:
            end.close()
        else:
            end.part(self._kept_open)

    def _kept_open(self) -> None:
        self.keeps_open = True

    def streams(self, now: float) -> int:
        """How many exchanges are streams by now."""
        return sum(talk.is_stream(now) for talk in self.inflight)

    def counts(self, now: float) -> dict[str, Any]:
        """The figures that ``stats`` reports."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "bytes": self.bytes,
            "in_flight": len(self.inflight),
            "streams": self.streams(now),
            "longest_wait_ms": round(self.longest_wait * 1000, 3),
        }


class Drain:
    """Waits until an instance has nothing in flight, at most some seconds; then cuts the rest."""

    __slots__ = ("_loop", "_since", "_timer", "_told", "instance")

    def __init__(self, loop: Loop, instance: Instance, seconds: float,
                 told: Callable[[int, float], None]) -> None:
        self._loop = loop
        self._since = loop.now
        self._told = told
        self.instance = instance
        self._timer: Timer = loop.later(seconds, self.cut)

    def check(self) -> None:
        """End it if nothing is left."""
        if not self.instance.inflight:
            self._finish(0)

    def cut(self) -> None:
        """Close what is left now."""
        left = list(self.instance.inflight)
        self.instance.draining = None
        for talk in left:
            talk.cut()
        self._finish(len(left))

    def _finish(self, cut: int) -> None:
        self._timer.cancel()
        self.instance.draining = None
        self._told(cut, (self._loop.now - self._since) * 1000)


class Rate:
    """Requests a second over the last ten seconds."""

    __slots__ = ("_count", "_first", "_past", "_second")

    def __init__(self, now: float) -> None:
        self._first = now
        self._second = int(now)
        self._count = 0
        self._past: list[tuple[int, int]] = []
        """Earlier seconds that had any, oldest first."""

    def add(self, now: float) -> None:
        """Count one."""
        if now >= self._second + 1:
            self._roll(int(now))
        self._count += 1

    def _roll(self, second: int) -> None:
        self._past = [*self._past[1 - _RATE_SECONDS:], (self._second, self._count)]
        self._second, self._count = second, 0

    def per_second(self, now: float) -> float:
        """The mean over the window, which is shorter while the holder is young."""
        self._roll(int(now))
        oldest = int(now) - _RATE_SECONDS
        total = sum(count for second, count in self._past if second > oldest)
        return round(total / min(_RATE_SECONDS, max(1.0, now - self._first)), 1)
