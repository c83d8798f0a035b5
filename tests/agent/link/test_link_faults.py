from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.frames import MAX_PAYLOAD, FrameDecoder, encode
from hyperbox_agent.errors import (
    AgentError,
    LinkLostError,
    LinkTimeoutError,
    ProtocolError,
    VersionError,
)
from hyperbox_agent.link import hello as hello_module
from hyperbox_agent.link import kinds
from hyperbox_agent.link.channel import Channel
from hyperbox_agent.link.connection import Limits, Link, Reply, Request
from hyperbox_agent.link.flow import U64
from hyperbox_agent.link.hello import MAGIC, NOISE_LIMIT, Hello
from hyperbox_agent.link.memory import MemoryStream, memory_pair
from hyperbox_agent.link.stream import ByteStream, FdStream, socket_stream

Streams = Callable[[], tuple[ByteStream, ByteStream]]
AGENT = Hello("agent", 1 << 20).encode()


def make_link(stream: ByteStream, clock: Any = None, limits: Limits | None = None) -> Link:
    return Link(stream, role="session", clock=clock or SystemClock(), limits=limits)


async def refused(said: bytes, *, end: bool = True) -> tuple[AgentError, Link]:
    near, far = memory_pair()
    link = make_link(near)
    await far.write(said)
    if end:
        await far.end()
    with pytest.raises(AgentError) as caught:
        await link.start({}, 5)
    with pytest.raises(LinkLostError):
        await near.read()
    assert (await link.closed).message == caught.value.message
    return caught.value, link


# -- who is there? ----------------------------------------------------------------------------


async def test_a_peer_that_is_no_agent_is_named_by_what_it_said() -> None:
    error, link = await refused(b"sh: 1: python3: \x1b[31mnot found\x1b[0m\r\n")
    assert isinstance(error, ProtocolError)
    assert error.message == ("this is not a HyperBox agent: it said "
                             "'sh: 1: python3: [31mnot found [0m'")
    assert "python3" in link.noise


async def test_a_peer_that_says_nothing_is_lost() -> None:
    error, _ = await refused(b"")
    assert isinstance(error, LinkLostError)
    assert "before it said anything" in error.message


async def test_a_flood_of_text_is_given_up_at_the_limit() -> None:
    error, _ = await refused(b"x" * (NOISE_LIMIT + 1000), end=False)
    assert isinstance(error, ProtocolError)
    assert len(error.message) < 500


async def test_text_before_the_hello_is_skipped_and_kept() -> None:
    near, far = memory_pair()
    banner = b"Welcome!\n" * 1000 + b"last login: never\n" + MAGIC[:7]
    link = make_link(near)
    await far.write(banner + AGENT)
    await link.start({}, 5)
    assert link.noise.endswith("last login: never Hyper")
    await link.close()


async def test_an_echo_is_not_taken_for_an_agent() -> None:
    near, far = memory_pair()
    link = make_link(near)

    async def cat() -> None:
        while data := await far.read():
            await far.write(data)

    echoing = asyncio.ensure_future(cat())
    with pytest.raises(ProtocolError, match="echoes what it gets"):
        await link.start({}, 5)
    await echoing


@pytest.mark.parametrize(("protocol", "version"), [(99, "0.1.0"), (1, "9.9.9"), (2, "7.0")])
async def test_another_version_is_refused_with_both_named(protocol: int, version: str) -> None:
    said = Hello("agent", 1 << 20, protocol=protocol, version=version).encode()
    error, _ = await refused(said, end=False)
    assert isinstance(error, VersionError)
    assert (error.theirs, error.ours) == (version, hello_module.VERSION)
    assert f"HyperBox {version} (protocol {protocol})" in error.message
    assert f"is {hello_module.VERSION} (protocol {hello_module.PROTOCOL})" in error.message
    assert "hyperbox down" in (error.hint or "")


@pytest.mark.parametrize("said", [
    encode(kinds.CALL, 1, b"{}"), encode(kinds.HELLO, 0, b"{"), encode(kinds.HELLO, 0, b"[]"),
    encode(kinds.HELLO, 0, b"{}"), encode(kinds.HELLO, 0, b'{"hyperbox": "1"}'),
    encode(kinds.HELLO, 0, b"\xff\xfe"), b"\xff\xff\xff\xff\x01\x00\x00\x00\x00",
    encode(kinds.HELLO, 0, b"[" * 100_000),
])
async def test_a_hello_that_is_none_is_a_protocol_error(said: bytes) -> None:
    error, _ = await refused(MAGIC + said, end=False)
    assert isinstance(error, ProtocolError)


async def test_a_silent_peer_is_waited_for_no_longer_than_asked(clock: Any) -> None:
    near, far = memory_pair()
    link = make_link(near, clock)
    await far.write(b"Password: ")
    starting = asyncio.ensure_future(link.start({}, 7))
    await clock.advance(6.9)
    assert not starting.done()
    await clock.advance(0.2)
    with pytest.raises(LinkTimeoutError, match="within 7 s; it said 'Password:'"):
        await starting


async def test_a_start_that_is_cancelled_closes_the_stream() -> None:
    near, far = memory_pair()
    link = make_link(near)
    starting = asyncio.ensure_future(link.start({}, 7))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    while await far.read():
        pass


# -- garbage on a running link ----------------------------------------------------------------


async def started() -> tuple[Link, MemoryStream]:
    """A session whose agent is played by the test, byte by byte."""
    near, far = memory_pair()
    link = make_link(near)
    await far.write(AGENT)
    await link.start({}, 5)
    await far.read()
    return link, far


GARBAGE = {
    "a kind that does not exist": encode(200, 0, b""),
    "a second hello": encode(kinds.HELLO, 0, b"{}"),
    "a length over the limit": b"\xff\xff\xff\xff\x06\x00\x00\x00\x01",
    "a reply to nothing": encode(kinds.REPLY, 4001, b'{"body": {}, "payload": false}'),
    "an error to nothing": encode(kinds.ERROR, 4001, b'{"type": "AgentError", "message": "x"}'),
    "data for nothing": encode(kinds.DATA, 4001, b"x"),
    "data for a call without payload": encode(kinds.DATA, 1, b"x"),
    "an end for a call without payload": encode(kinds.END, 1, U64.pack(0)),
    "side data for a call": (encode(kinds.REPLY, 1, b'{"body": {}, "payload": true}')
                             + encode(kinds.SIDE, 1, b"x")),
    "a done for a call": encode(kinds.DONE, 1, b'{"body": {}}'),
    "a call with our number": encode(kinds.CALL, 3, b'{"op": "x", "body": {}, "payload": false}'),
    "a call with number 0 twice": 2 * encode(
        kinds.CALL, 2, b'{"op": "x", "body": {}, "payload": false}'),
    "a call that is not JSON": encode(kinds.CALL, 2, b"\x00\x01"),
    "a call without op": encode(kinds.CALL, 2, b'{"body": {}, "payload": false}'),
    "a reply without body": encode(kinds.REPLY, 1, b"{}"),
    "an error without type": encode(kinds.ERROR, 1, b"{}"),
    "a credit that is short": encode(kinds.CREDIT, 1, b"xx"),
    "a notify of a number": encode(kinds.NOTIFY, 0, b"7"),
    "deep JSON": encode(kinds.NOTIFY, 0, b"[" * 500_000),
    "an end that counts wrong": (encode(kinds.REPLY, 1, b'{"body": {}, "payload": true}')
                                 + encode(kinds.DATA, 1, b"abc")
                                 + encode(kinds.END, 1, U64.pack(4))),
    "more than the credit": (encode(kinds.REPLY, 1, b'{"body": {}, "payload": true}')
                             + 12 * encode(kinds.DATA, 1, bytes(kinds.CHUNK))),
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_ends_the_link_and_every_call_at_once(what: str) -> None:
    link, far = await started()
    calls = [asyncio.ensure_future(link.call("x", timeout=None)) for _ in range(3)]
    await asyncio.sleep(0)
    await far.write(GARBAGE[what])
    reason = await asyncio.wait_for(link.closed, 30)
    assert isinstance(reason, ProtocolError)
    done = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
    lost = [one for one in done if isinstance(one, LinkLostError)]
    assert len(lost) >= 2  # the first may have got its answer before the garbage
    assert reason.message in lost[-1].message
    while await far.read():
        pass
    await link.close()


async def test_random_bytes_never_hang_a_link() -> None:
    for seed in range(30):
        link, far = await started()
        call = asyncio.ensure_future(link.call("x", timeout=None))
        await asyncio.sleep(0)
        await far.write(os.urandom(200 + seed * 50))
        await far.end()
        with pytest.raises(AgentError):
            await asyncio.wait_for(call, 30)
        await link.close()


async def test_late_frames_of_a_number_that_was_given_up_are_ignored() -> None:
    link, far = await started()
    call = asyncio.ensure_future(link.call("x", timeout=None))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await far.write(encode(kinds.REPLY, 1, b'{"body": {}, "payload": true}')
                    + encode(kinds.DATA, 1, b"x") + encode(kinds.END, 1, U64.pack(1))
                    + encode(kinds.CREDIT, 1, U64.pack(1))
                    + encode(kinds.ERROR, 1, b'{"type": "AgentError", "message": "x"}')
                    + encode(kinds.DONE, 1, b'{"body": {}}'))
    answered = asyncio.ensure_future(link.ping(30))
    decoder = FrameDecoder()
    while not answered.done():
        for frame in decoder.feed(await far.read()):
            if frame.kind == kinds.PING:
                await far.write(encode(kinds.PONG, 0, frame.payload))
        await asyncio.sleep(0.001)
    assert await answered < 30
    assert link.lost is None
    await link.close()


async def test_a_handler_of_notices_that_fails_ends_the_link() -> None:
    link, far = await started()

    def fail(body: Mapping[str, Any]) -> None:
        raise KeyError("bug")

    link.on_notice("event", fail)
    await far.write(encode(kinds.NOTIFY, 0, b'{"op": "event", "body": {}}'))
    assert "KeyError" in (await asyncio.wait_for(link.closed, 30)).message
    await link.close()


# -- the other side goes away -----------------------------------------------------------------


async def hang(request: Request) -> None:
    await asyncio.Event().wait()


async def trickle(request: Request) -> Reply:
    async def forever() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()
    return Reply({}, forever())


async def silent(body: Mapping[str, Any], channel: Channel) -> None:
    channel.accept()
    await asyncio.Event().wait()


def serve(link: Link) -> None:
    link.handle("hang", hang)
    link.handle("trickle", trickle)
    link.handle_channel("silent", silent)


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(100_000)


async def test_everything_that_waits_fails_at_once_when_the_link_is_lost(streams: Streams,
                                                                        links: Any) -> None:
    near, far = streams()
    session, _ = await links((near, far), prepare=serve)
    answer = await session.call("trickle", timeout=5)
    channel, _ = await session.open("silent", timeout=5)
    reading = answer.payload.exactly(100)
    waits = [asyncio.ensure_future(one) for one in (
        session.call("hang", timeout=None), session.call("hang", {}, endless(), timeout=None),
        reading, channel.read(), channel.result(), _fill(channel), session.closed)]
    await asyncio.sleep(0.02)
    await far.close()
    done = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 30)
    assert [type(one) for one in done] == [LinkLostError] * 7, done
    for late in (session.call("hang", timeout=None), session.notify("x", {}), session.ping(1),
                 session.open("silent", timeout=None)):
        with pytest.raises(LinkLostError):
            await late


async def _fill(channel: Channel) -> None:
    while True:
        await channel.write(bytes(100_000))


async def test_the_handlers_of_a_lost_link_are_cancelled(links: Any) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def work(request: Request) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    session, _ = await links(prepare=lambda link: link.handle("work", work))
    call = asyncio.ensure_future(session.call("work", timeout=None))
    await asyncio.wait_for(begun.wait(), 30)
    await session.close()
    await asyncio.wait_for(cancelled.wait(), 30)
    with pytest.raises(LinkLostError):
        await call


async def test_a_stream_that_breaks_on_writing_is_a_lost_link() -> None:
    near, far = memory_pair()
    link = make_link(near)
    await far.write(AGENT)
    await link.start({}, 5)
    near.fail_now("the cable is out")
    with pytest.raises(LinkLostError, match="the cable is out"):
        await link.call("x", timeout=None)
    assert "the cable is out" in (await link.closed).message
    await link.close()


async def _called(link: Link) -> None:
    await link.call("x", {}, b"payload", timeout=None)


async def _called_with_much(link: Link) -> None:
    await link.call("x", {}, bytes(1 << 20), timeout=None)


async def _opened(link: Link) -> None:
    await link.open("x", {}, timeout=None)


async def _pinged(link: Link) -> None:
    await link.ping(60.0)


@pytest.mark.parametrize("ask", [_called, _called_with_much, _opened, _pinged])
async def test_what_finds_by_asking_that_the_peer_is_dead_does_not_wait_for_it(
        ask: Callable[[Link], Any]) -> None:
    """The write fails before the loop has read the end: a peer that was killed just now."""
    ours, theirs = socket.socketpair()
    link = make_link(socket_stream(ours))
    theirs.send(AGENT)
    await link.start({}, 5)
    theirs.close()
    with pytest.raises(LinkLostError):
        await asyncio.wait_for(ask(link), 5)
    assert link.lost is not None
    await link.close()


async def test_a_body_over_the_limit_leaves_the_link_as_it_was(links: Any) -> None:
    near, far = await links()
    far.handle("echo", _echo)
    with pytest.raises(ProtocolError):
        await near.call("echo", {"text": "x" * (MAX_PAYLOAD + 1)}, timeout=5)
    assert (await near.call("echo", {"text": "y"}, timeout=5)).body == {"text": "y"}


async def _echo(request: Request) -> Mapping[str, Any]:
    return request.body


async def test_an_end_inside_a_frame_is_named() -> None:
    link, far = await started()
    await far.write(encode(kinds.NOTIFY, 0, b'{"op": "x", "body": {}}')[:-3])
    await far.end()
    assert "in the middle of a frame" in (await asyncio.wait_for(link.closed, 30)).message
    await link.close()


async def test_a_peer_that_stops_reading_does_not_block_for_ever(clock: Any) -> None:
    near, far = memory_pair()
    link = make_link(near, clock)
    await far.write(AGENT)
    await link.start({}, 5)
    call = asyncio.ensure_future(link.call("x", {}, endless(), timeout=None))
    near.stall()
    await clock.advance(40)
    with pytest.raises(LinkLostError, match="no sign of life"):
        await asyncio.wait_for(call, 30)
    await link.close()


async def test_a_dead_peer_is_found_and_a_living_one_is_kept(clock: Any, links: Any) -> None:
    near, far = memory_pair()
    session, agent = await links((near, far), clock=clock)
    await clock.advance(300)
    assert session.lost is None
    assert agent.lost is None
    far.stall()
    await clock.advance(29)
    assert session.lost is None
    await clock.advance(11)
    assert session.lost is not None
    assert "no sign of life" in f"{session.lost} {agent.lost}"


async def test_after_a_sleep_of_ours_a_living_peer_is_kept(clock: Any, links: Any) -> None:
    session, agent = await links(clock=clock)
    await clock.jump(90)
    await clock.advance(10)
    assert session.lost is None
    assert agent.lost is None


async def test_after_a_sleep_of_ours_a_dead_peer_is_found_within_seconds(clock: Any,
                                                                         links: Any) -> None:
    near, far = memory_pair()
    session, _ = await links((near, far), clock=clock)
    far.stall()
    await clock.jump(90)
    await clock.advance(2.1)
    assert session.lost is not None


async def test_ping_measures_and_gives_up(clock: Any, links: Any) -> None:
    near, far = memory_pair()
    session, _ = await links((near, far), clock=clock)
    assert await session.ping(1) == 0
    far.stall()
    pinging = asyncio.ensure_future(session.ping(1))
    await clock.advance(1.1)
    with pytest.raises(LinkTimeoutError, match="a ping"):
        await pinging


async def test_close_does_not_wait_for_a_peer_that_is_stuck() -> None:
    read_fd, write_fd = os.pipe()
    other_read, other_write = os.pipe()
    far = FdStream(other_read, write_fd)
    link = make_link(FdStream(read_fd, other_write), limits=Limits(goodbye=0.1))
    await far.write(AGENT)
    await link.start({}, 5)
    call = asyncio.ensure_future(link.call("x", {}, endless(), timeout=None))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(link.close(), 30)
    with pytest.raises(LinkLostError):
        await call
    await far.close()
