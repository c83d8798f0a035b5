"""What an agent says before the source is read: kept in order, bounded, and told then."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

KEPT = 10_000
"""Lines of output that are kept, and as many other events. A program that was running before us
may say any number of them while a big source is read."""

_Numbered = tuple[int, Mapping[str, Any]]


class Heard:
    """Output is dropped apart from all else, the oldest first, and counted: what state the program
    is in must be known."""

    def __init__(self) -> None:
        self._lines: deque[_Numbered] = deque(maxlen=KEPT)
        self._others: deque[_Numbered] = deque(maxlen=KEPT)
        self._put = 0

    def put(self, event: Mapping[str, Any]) -> None:
        """Keep one event."""
        kind = self._lines if event.get("event") == "log" else self._others
        kind.append((self._put, event))
        self._put += 1

    def tell(self, on_event: Callable[[Mapping[str, Any]], None]) -> None:
        """Hand on what was kept; after that there is nothing."""
        kept = list(heapq.merge(self._lines, self._others, key=lambda numbered: numbered[0]))
        dropped, self._put = self._put - len(kept), 0
        self._lines.clear()
        self._others.clear()
        if dropped:
            on_event({"event": "dropped", "count": dropped})
        for _, event in kept:
            on_event(event)
