"""The session's last events, kept for clients that come late, come back or read slowly.

Every client has only a position here, no queue of its own: a slow one costs no memory and never
holds up the session; what it missed is counted when it comes back.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

_SIZE_OF_ONE = 120
"""Bytes that an event costs beside its text."""


class Kept(NamedTuple):
    """One event. ``tail`` is its JSON text, encoded once for all clients."""

    seq: int
    word: str
    tail: str


class Read(NamedTuple):
    """What a position gives: events in order, and how many were lost before them."""

    events: list[Kept]
    lost: int
    position: int
    """The sequence number to go on from."""


class EventRing:
    """A bounded row of events with sequence numbers from 1."""

    def __init__(self, *, max_events: int = 20_000, max_bytes: int = 8 * 1024 * 1024) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._kept: deque[Kept] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self.last = 0
        """The newest sequence number; 0: none yet."""

    @property
    def first(self) -> int:
        """The oldest sequence number that is still kept."""
        return self._kept[0].seq if self._kept else self.last + 1

    def append(self, event: Mapping[str, Any]) -> int:
        """Keep an event and wake those who wait; returns its number."""
        self.last += 1
        tail = json.dumps(event, separators=(",", ":"))
        self._kept.append(Kept(self.last, str(event.get("event", "")), tail))
        self._bytes += len(tail) + _SIZE_OF_ONE
        while self._bytes > self._max_bytes or len(self._kept) > self._max_events:
            self._bytes -= len(self._kept.popleft().tail) + _SIZE_OF_ONE
        self._changed.set()
        self._changed = asyncio.Event()
        return self.last

    def read(self, position: int, limit: int = 256) -> Read:
        """Up to ``limit`` events after ``position``."""
        start = max(position + 1, self.first)
        lost = max(0, start - position - 1)
        skip = start - self.first
        events = list(islice(self._kept, skip, skip + limit))
        return Read(events, lost, events[-1].seq if events else start - 1)

    def tail(self, count: int, words: frozenset[str]) -> int:
        """The position from which ``count`` events of these words (none: all) are to come."""
        if count <= 0:
            return self.last
        for kept in reversed(self._kept):
            count -= not words or kept.word in words
            if not count:
                return kept.seq - 1
        return self.first - 1

    async def wait(self, position: int) -> None:
        """Return when there is an event after ``position``."""
        while self.last <= position:
            await self._changed.wait()
