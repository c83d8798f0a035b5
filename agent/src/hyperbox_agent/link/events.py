"""Events on their way to the session: kept in order, bounded, and kept while nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.errors import LinkLostError
from hyperbox_agent.link.backlog import Backlog
from hyperbox_agent.link.connection import Link

KEPT = 20_000
"""Lines of output that wait while no session listens, at most: the oldest go, and are counted."""
FULL = 5_000
"""Events that wait for a listening session before the program's output is read no further."""
BOUND = 200_000
"""Events that are kept at most, whoever listens. Above what one program's readers of output
still hand on after they were told to wait (a piece each, 65,536 lines at most)."""
BATCH = 200
"""Events in one notification."""


class EventPump:
    """Hands events to the newest link. Lives on one event loop."""

    def __init__(self) -> None:
        self._waiting = Backlog()
        self._some = asyncio.Event()
        self._listening = 0
        self._turn = asyncio.Lock()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: Mapping[str, Any]) -> None:
        """Never waits."""
        self._waiting.put(event, lines=BOUND if self._listening else KEPT, others=BOUND)
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
            # The one before has put back what it could not send.
            async with self._turn:
                await self._send(link)
        finally:
            self._listening -= 1
            if not self._listening:
                self._room.set()

    async def _send(self, link: Link) -> None:
        while True:
            await self._some.wait()
            batch = [self._waiting.next() for _ in range(min(BATCH, len(self._waiting)))]
            if not batch:
                self._some.clear()
                continue
            dropped = self._waiting.take_dropped()
            try:
                await link.notify("events", {"events": [event for _, event in batch],
                                             "dropped": dropped})
            except BaseException as error:
                self._waiting.dropped += dropped
                self._waiting.put_back(batch)
                self._some.set()
                if isinstance(error, LinkLostError):
                    return
                raise
            if len(self._waiting) < FULL // 2:
                self._room.set()
