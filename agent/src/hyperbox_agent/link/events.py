"""Events on their way to the session: kept in order, bounded, and kept while nobody listens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.errors import LinkLostError
from hyperbox_agent.link.connection import Link

KEPT = 20_000
"""Events that wait for a session at most. Older output lines are dropped first, and counted."""
FULL = 5_000
"""Events that wait for a listening session before the program's output is read no further."""
BATCH = 200
"""Events in one notification."""


class EventPump:
    """Hands events to the newest link. Lives on one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._dropped = 0
        self._some = asyncio.Event()
        self._listening = 0
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: Mapping[str, Any]) -> None:
        """Never waits."""
        if len(self._waiting) >= KEPT:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(event)
        self._some.set()
        if self._listening and len(self._waiting) >= FULL:
            self._room.clear()

    async def room(self) -> None:
        """Return when more output may come. With nobody there it always may: the oldest goes."""
        await self._room.wait()

    async def run(self, link: Link) -> None:
        """Send what comes, and what waited, until the link is lost."""
        self._listening += 1
        try:
            await self._send(link)
        finally:
            self._listening -= 1
            if not self._listening:
                self._room.set()

    async def _send(self, link: Link) -> None:
        while True:
            await self._some.wait()
            batch = [self._waiting[index] for index in range(min(BATCH, len(self._waiting)))]
            if not batch:
                self._some.clear()
                continue
            dropped, self._dropped = self._dropped, 0
            try:
                await link.notify("events", {"events": batch, "dropped": dropped})
            except LinkLostError:
                self._dropped += dropped
                return
            for _ in batch:
                self._waiting.popleft()
            if len(self._waiting) < FULL // 2:
                self._room.set()
