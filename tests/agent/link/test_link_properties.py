"""However the bytes are cut, and wherever the link breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.frames import Frame, FrameDecoder
from hyperbox_agent.errors import AgentError, LinkLostError
from hyperbox_agent.link.channel import Channel
from hyperbox_agent.link.connection import Limits, Link, Reply, Request
from hyperbox_agent.link.hello import MAGIC, Hello, HelloScanner
from hyperbox_agent.link.memory import MemoryStream, memory_pair

UP, DOWN = bytes(range(256)) * 12, bytes(reversed(range(256))) * 15
LIMITS = Limits(window=1500, goodbye=0.05)
"""So small that credit has to travel as well."""


async def swap(request: Request) -> Reply:
    size = 0
    async for piece in request.payload:
        size += len(piece)

    async def down() -> AsyncIterator[bytes]:
        for at in range(0, len(DOWN), 700):
            yield DOWN[at:at + 700]

    return Reply({"size": size}, down())


async def echo(body: Mapping[str, Any], channel: Channel) -> Mapping[str, Any]:
    while data := await channel.read():
        await channel.write(data)
    return {"done": True}


async def use(link: Link) -> list[object]:
    """What three users of a link got: everything right, or an error."""

    async def call() -> bool:
        answer = await link.call("swap", {"x": 1}, UP, timeout=20)
        return answer.body == {"size": len(UP)} and await answer.payload.read() == DOWN

    async def channel() -> bool:
        opened, _ = await link.open("echo", timeout=20)
        sending = asyncio.ensure_future(_send(opened))
        got = b""
        try:
            while data := await opened.read(99):
                got += data
            return got == UP and (await opened.result()) == {"done": True}
        finally:
            await asyncio.wait({sending})

    async def _send(opened: Channel) -> None:
        try:
            await opened.write(UP)
            await opened.end()
        except LinkLostError:
            return

    return await asyncio.wait_for(
        asyncio.gather(call(), call(), channel(), return_exceptions=True), 20)


async def scenario(near: MemoryStream, far: MemoryStream) -> list[object]:
    session = Link(near, role="session", clock=SystemClock(), limits=LIMITS)
    agent = Link(far, role="agent", clock=SystemClock(), limits=LIMITS)
    agent.handle("swap", swap)
    agent.handle_channel("echo", echo)
    try:
        begun = await asyncio.wait_for(asyncio.gather(
            session.start({}, 5), agent.start({}, 5), return_exceptions=True), 5)
        if isinstance(begun[0], BaseException):
            return [begun[0]]
        return await use(session)
    finally:
        await session.close()
        await agent.close()


@given(near_piece=st.integers(1, 400), far_piece=st.integers(1, 400))
@settings(max_examples=25)
def test_any_chunking_of_the_stream_gives_the_same(near_piece: int, far_piece: int) -> None:
    async def run() -> None:
        near, far = memory_pair()
        near.pieces(near_piece)
        far.pieces(far_piece)
        assert await scenario(near, far) == [True, True, True]

    asyncio.run(run())


class Tap:
    """Remembers what passes."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.passed = b""
        self.read, self.end, self.close = stream.read, stream.end, stream.close

    async def write(self, data: bytes) -> None:
        self.passed += data
        await self.stream.write(data)


def boundaries(wire: bytes) -> list[int]:
    """The places between two frames."""
    decoder = FrameDecoder()
    at = wire.index(MAGIC) + len(MAGIC)
    return [at, *(number + 1 for number in range(at, len(wire))
                  if decoder.feed(wire[number:number + 1]))]


async def test_a_cut_at_every_frame_fails_what_waits_and_gives_nothing_by_half() -> None:
    near, far = memory_pair()
    tap = Tap(far)
    assert await scenario(near, tap) == [True, True, True]  # type: ignore[arg-type]
    places = boundaries(tap.passed)
    assert len(places) > 20
    for place in places:
        for shift in (-1, 0, 1):
            near, far = memory_pair()
            far.cut_after(max(place + shift, 1))
            check(await scenario(near, far))


@given(st.integers(1, 12_000), st.booleans())
@settings(max_examples=40)
def test_a_cut_anywhere_in_either_direction(place: int, agent_side: bool) -> None:
    async def run() -> None:
        near, far = memory_pair()
        (far if agent_side else near).cut_after(place)
        check(await scenario(near, far))

    asyncio.run(run())


def check(results: list[object]) -> None:
    for result in results:
        assert result is True or isinstance(result, AgentError), results


@given(noise=st.binary(max_size=300), cuts=st.lists(st.integers(1, 50), max_size=40))
def test_the_hello_is_found_behind_any_noise_in_any_pieces(noise: bytes, cuts: list[int]) -> None:
    said = Hello("agent", 5, facts={"a": 1}).encode()
    wire = noise.replace(MAGIC, b"") + said + said[len(MAGIC):]
    scanner, found, at = HelloScanner(), None, 0
    rest: list[Frame] = []
    for size in [*cuts, len(wire)]:
        piece, at = wire[at:at + size], at + size
        if found is not None:
            rest += found[2].feed(piece)
        else:
            found = scanner.feed(piece)
            rest = list(found[1]) if found else []
    assert found is not None
    assert Hello.decode(found[0]).facts == {"a": 1}
    assert len(rest) == 1
    assert scanner.noise == noise.replace(MAGIC, b"")


@pytest.mark.slow
async def test_a_cut_at_every_single_byte() -> None:
    near, far = memory_pair()
    tap = Tap(far)
    await scenario(near, tap)  # type: ignore[arg-type]
    for place in range(1, len(tap.passed)):
        near, far = memory_pair()
        far.cut_after(place)
        check(await scenario(near, far))
