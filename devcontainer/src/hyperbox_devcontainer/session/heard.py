"""What an agent says before the source is read: kept in order, bounded, and told then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hyperbox_agent.link.backlog import Backlog

KEPT = 10_000
"""Lines of output that are kept, and as many other events. A program that was running before us
may say any number of them while a big source is read."""


class Heard:
    """See ``Backlog`` for what is dropped."""

    def __init__(self) -> None:
        self._waiting = Backlog()

    def put(self, event: Mapping[str, Any]) -> None:
        """Keep one event."""
        self._waiting.put(event, lines=KEPT, others=KEPT)

    def tell(self, on_event: Callable[[Mapping[str, Any]], None]) -> None:
        """Hand on what was kept; after that there is nothing."""
        dropped = self._waiting.take_dropped()
        if dropped:
            on_event({"event": "dropped", "count": dropped})
        while self._waiting:
            on_event(self._waiting.next()[1])
