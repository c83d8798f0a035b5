"""Events on their way to the session: kept in order, bounded, and kept while nobody listens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.errors import LinkLostError
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

_Numbered = tuple[int, Mapping[str, Any]]


class EventPump:
    """Hands events to the newest link. Lives on one event loop.

    Output is dropped before anything else is: it may be much, and what state the program is in
    must be known.
    """

    def __init__(self) -> None:
        self._lines: deque[_Numbered] = deque()
        self._others: deque[_Numbered] = deque()
        self._put = 0
        self._dropped = 0
        self._some = asyncio.Event()
        self._listening = 0
        self._turn = asyncio.Lock()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: Mapping[str, Any]) -> None:
        """Never waits."""
        self._put += 1
        if event.get("event") == "log":
            self._lines.append((self._put, event))
            self._drop(self._lines, BOUND if self._listening else KEPT)
        else:
            self._others.append((self._put, event))
            self._drop(self._others, BOUND)
        self._some.set()
        if self._listening and self._waiting >= FULL:
            self._room.clear()

    @property
    def _waiting(self) -> int:
        return len(self._lines) + len(self._others)

    def _drop(self, kind: deque[_Numbered], limit: int) -> None:
        while len(kind) > limit:
            kind.popleft()
            self._dropped += 1

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
            batch = [self._next() for _ in range(min(BATCH, self._waiting))]
            if not batch:
                self._some.clear()
                continue
            dropped, self._dropped = self._dropped, 0
            try:
                await link.notify("events", {"events": [event for _, event in batch],
                                             "dropped": dropped})
            except BaseException as error:
                self._dropped += dropped
                self._put_back(batch)
                if isinstance(error, LinkLostError):
                    return
                raise
            if self._waiting < FULL // 2:
                self._room.set()

    def _next(self) -> _Numbered:
        """The oldest of all."""
        if not self._others or (self._lines and self._lines[0][0] < self._others[0][0]):
            return self._lines.popleft()
        return self._others.popleft()

    def _put_back(self, batch: list[_Numbered]) -> None:
        for numbered in reversed(batch):
            is_line = numbered[1].get("event") == "log"
            (self._lines if is_line else self._others).appendleft(numbered)
        self._some.set()
