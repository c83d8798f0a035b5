"""When is a batch of changes complete? A pure decision over what was seen so far.

Nothing in a file system says that a save is over, so the answer is a bet, and the stake is a mixed
version that goes live. The window after the last event is short only where the events themselves
prove that one whole file was written and where this person's recent saves were of one file each. A
fixed 15 ms splits a save-all of an editor that writes its files 30 ms apart (measured).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hyperbox_agent.core.entries import Change, Kind


@dataclass(frozen=True, slots=True)
class SettleConfig:
    """The windows, in seconds."""

    proven: float = 0.002
    """Every event proved a complete write of one file, and recent bursts were single files."""
    normal: float = 0.020
    begun: float = 0.035
    """Recent bursts had several files, and of this one only one whole file was seen yet: the next
    of a save-all follows within 30 ms. The start of the new version, which can be taken back until
    it is switched to, adds to it."""
    burst: float = 0.060
    """This burst has several files, or its events prove nothing and recent ones had several."""
    cap: float = 0.5
    """From the first event on; a version-control operation in progress is waited out beyond it."""
    memory: int = 5
    """How many bursts are recent."""
    same_burst: float = 0.080
    """Two batches closer than this, of different files, were one burst that we split: learn from
    it."""


def proves_write(change: Change) -> bool:
    """Whether a change that came with a close or a move into place is one complete write.

    A file that became empty or much shorter never proves it: editors truncate before they write.
    """
    new = change.new
    if new is None or new.kind is not Kind.FILE or new.size == 0:
        return False
    old = change.old
    return old is None or old.kind is not Kind.FILE or new.size * 2 >= old.size


class Settler:
    """Follows one source's bursts. Times are those of one monotonic clock, in seconds."""

    def __init__(self, config: SettleConfig | None = None) -> None:
        self._config = config or SettleConfig()
        self._several: deque[bool] = deque(maxlen=self._config.memory)
        self._first: float | None = None
        self._last = 0.0
        self._paths: set[str] = set()
        self._all_proven = True
        self._previous_end: float | None = None
        self._previous_paths: frozenset[str] = frozenset()

    def event(self, path: str, proven: bool, now: float) -> None:
        """One event of the current burst."""
        if self._first is None:
            self._first = now
        self._last = max(self._last, now)
        self._paths.add(path)
        self._all_proven = self._all_proven and proven

    @property
    def first(self) -> float | None:
        """When the current burst began; None while there is none."""
        return self._first

    @property
    def last(self) -> float:
        """When the newest event of the current burst came; 0 while there is none."""
        return self._last

    @property
    def cap(self) -> float:
        """Seconds from a burst's first event after which it is not waited for any more."""
        return self._config.cap

    def window(self) -> float:
        """The quiet that the current burst must show."""
        config = self._config
        if self._goes_on():
            return config.burst
        if not self._several or any(self._several):
            lone = self._all_proven and len(self._paths) <= 1
            return config.begun if lone else config.burst
        if self._all_proven and len(self._paths) <= 1:
            return config.proven
        # A second file in a time of single saves is a burst that begins: more may follow.
        return config.burst if len(self._paths) > 1 else config.normal

    def deadline(self) -> float | None:
        """When the current burst is settled unless another event comes; None: there is none."""
        if self._first is None:
            return None
        return min(self._last + self.window(), self._first + self._config.cap)

    def taken(self) -> None:
        """The current burst was taken as a batch: remember its kind and begin anew."""
        if self._first is None:
            return
        split = self._goes_on()
        if split and self._several:
            self._several[-1] = True
        self._several.append(split or len(self._paths) > 1)
        self._previous_end = self._last
        self._previous_paths = frozenset(self._paths)
        self.forget()

    def _goes_on(self) -> bool:
        """Whether the current burst is the rest of the one before, which was taken too soon."""
        return (self._first is not None and self._previous_end is not None
                and self._first - self._previous_end < self._config.same_burst
                and not self._paths <= self._previous_paths)

    def forget(self) -> None:
        """The current burst came to nothing (its events changed no content)."""
        self._first = None
        self._last = 0.0
        self._paths.clear()
        self._all_proven = True
