"""Pairs of links over every kind of stream, and a clock that tests move."""

from __future__ import annotations

import asyncio
import heapq
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.link.connection import Limits, Link
from hyperbox_agent.link.memory import memory_pair
from hyperbox_agent.link.stream import ByteStream, pipe_pair, socket_stream

KINDS = ("memory", "pipe", "socket")


def make_pair(kind: str) -> tuple[ByteStream, ByteStream]:
    if kind == "memory":
        return memory_pair()
    if kind == "pipe":
        return pipe_pair()
    one, other = socket.socketpair()
    return socket_stream(one), socket_stream(other)


class ManualClock:
    """Time that only ``advance`` moves."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.time + seconds, self._count, waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        end = self.time + seconds
        while True:
            await settle()
            if not self._sleepers or self._sleepers[0][0] > end:
                break
            self.time, _, waiter = heapq.heappop(self._sleepers)
            if not waiter.done():
                waiter.set_result(None)
        self.time = end
        await settle()

    async def jump(self, seconds: float) -> None:
        """As if this process had been stopped for so long: no timer fires on its way."""
        self.time += seconds
        await self.advance(0)


async def settle(turns: int = 30) -> None:
    """Let every task that can run do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=KINDS)
def streams(request: pytest.FixtureRequest) -> Callable[[], tuple[ByteStream, ByteStream]]:
    return lambda: make_pair(request.param)


Links = Callable[..., Awaitable[tuple[Link, Link]]]


@pytest.fixture
async def links() -> AsyncIterator[Links]:
    """Makes a started (session, agent) pair; ``prepare`` gets the agent before it starts."""
    made: list[Link] = []

    async def make(pair: tuple[ByteStream, ByteStream] | None = None, *,
                   prepare: Callable[[Link], None] = lambda link: None,
                   clock: object = None, limits: Limits | None = None) -> tuple[Link, Link]:
        near, far = pair or memory_pair()
        time = clock or SystemClock()
        session = Link(near, role="session", clock=time, limits=limits)  # type: ignore[arg-type]
        agent = Link(far, role="agent", clock=time, limits=limits)  # type: ignore[arg-type]
        made.extend((session, agent))
        prepare(agent)
        await asyncio.gather(session.start({"who": "s"}, 5), agent.start({"who": "a"}, 5))
        return session, agent

    yield make
    for link in made:
        await link.close()
