from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from hyperbox_agent.errors import (
    AgentError,
    FaultError,
    LinkLostError,
    LinkTimeoutError,
    MissingBlobsError,
    NoSpaceError,
    ProtocolError,
)
from hyperbox_agent.link.channel import Channel, Data, Note
from hyperbox_agent.link.connection import Limits, Link, Reply, Request
from hyperbox_agent.link.crossing import decode_error
from hyperbox_agent.link.stream import ByteStream

Streams = Callable[[], tuple[ByteStream, ByteStream]]
MIB = 1 << 20


def pattern(size: int) -> bytes:
    return bytes(range(251)) * (size // 251 + 1)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at:at + size]


async def echo(request: Request) -> Reply:
    return Reply({"op": request.op, **request.body}, request.payload)


async def swallow(request: Request) -> Mapping[str, Any]:
    return {"size": len(await request.payload.read())}


def serve(link: Link) -> None:
    link.handle("echo", echo)
    link.handle("swallow", swallow)


async def test_hellos_are_exchanged_with_their_facts(streams: Streams, links: Any) -> None:
    session, agent = await links(streams())
    assert session.peer.role == "agent"
    assert session.peer.facts == {"who": "a"}
    assert agent.peer.facts == {"who": "s"}
    assert session.noise == ""


@pytest.mark.parametrize("size", [0, 1, 3000, 64 * 1024, 64 * 1024 + 1, 256 * 1024, 3 * MIB + 17])
async def test_a_payload_comes_back_as_it_was_sent(streams: Streams, links: Any,
                                                   size: int) -> None:
    session, _ = await links(streams(), prepare=serve)
    data = pattern(size)[:size]
    answer = await session.call("echo", {"x": "é\udcff"}, data, timeout=10)
    assert answer.body == {"op": "echo", "x": "é\udcff"}
    assert await answer.payload.read() == data
    answer = await session.call("echo", {}, pieces(data, 70_001), timeout=10)
    assert await answer.payload.read() == data


async def test_many_calls_in_both_directions_at_once(streams: Streams, links: Any) -> None:
    session, agent = await links(streams(), prepare=serve)
    serve(session)

    async def one(link: Link, number: int) -> None:
        data = pattern(number * 4001)[:number * 4001]
        answer = await link.call("echo", {"n": number}, data, timeout=20)
        assert answer.body["n"] == number
        assert await answer.payload.read() == data

    await asyncio.gather(*(one(link, number) for link in (session, agent) for number in range(40)))


async def test_errors_cross_as_their_own_class_with_their_fields(links: Any) -> None:
    async def fail(request: Request) -> None:
        error = NoSpaceError("full: /data", file="/data", line=3, key="k", hint="remove something")
        error.need = 17  # type: ignore[attr-defined]
        raise error

    session, _ = await links(prepare=lambda agent: agent.handle("fail", fail))
    with pytest.raises(NoSpaceError, match="full: /data") as caught:
        await session.call("fail", timeout=5)
    error = caught.value
    assert (error.file, error.line, error.key, error.hint) == ("/data", 3, "k", "remove something")
    assert error.need == 17  # type: ignore[attr-defined]


async def test_fields_of_bytes_and_lists_cross_and_absent_ones_have_their_defaults(
        links: Any) -> None:
    digests = tuple(bytes([number % 256]) * 32 for number in range(10_000))

    async def fail(request: Request) -> None:
        raise MissingBlobsError("not here", digests=digests[:request.body["count"]])

    session, _ = await links(prepare=lambda agent: agent.handle("fail", fail))
    for count in (0, 3, 10_000):
        with pytest.raises(MissingBlobsError) as caught:
            await session.call("fail", {"count": count}, timeout=5)
        assert caught.value.digests == digests[:min(count, 4096)]
    raw = b'{"type": "MissingBlobsError", "message": "x", "fields": {"line": "no", "args": 3}}'
    error = decode_error(raw)
    assert isinstance(error, MissingBlobsError)
    assert (error.digests, error.line, error.args) == ((), None, ("x",))
    assert type(decode_error(b'{"type": "Exception", "message": "x"}')) is AgentError


async def test_a_fault_of_a_handler_comes_with_its_traceback(links: Any) -> None:
    async def fail(request: Request) -> None:
        raise ZeroDivisionError("oh")

    session, _ = await links(prepare=lambda agent: agent.handle("fail", fail))
    with pytest.raises(FaultError, match="ZeroDivisionError: oh") as caught:
        await session.call("fail", timeout=5)
    assert "in fail" in caught.value.details
    assert session.lost is None


async def test_an_unknown_op_is_a_protocol_error_and_the_link_goes_on(links: Any) -> None:
    session, _ = await links(prepare=serve)
    with pytest.raises(ProtocolError, match="unknown op 'nope'"):
        await session.call("nope", timeout=5)
    with pytest.raises(ProtocolError, match="unknown op 'nope'"):
        await session.open("nope", timeout=5)
    assert (await session.call("swallow", {}, b"abc", timeout=5)).body == {"size": 3}


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(links: Any) -> None:
    session, _ = await links(prepare=serve)
    with pytest.raises(ProtocolError, match="limit") as caught:
        await session.call("echo", {"x": "y" * MIB}, timeout=5)
    assert "payload" in (caught.value.hint or "")
    assert (await session.call("echo", {"x": 1}, timeout=5)).body["x"] == 1


async def test_a_call_that_is_cancelled_cancels_its_handler(links: Any) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(request: Request) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    session, _ = await links(prepare=lambda agent: agent.handle("hang", hang))
    call = asyncio.ensure_future(session.call("hang", timeout=None))
    await asyncio.wait_for(begun.wait(), 30)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(ended.wait(), 30)
    assert session.lost is None


async def test_a_call_that_takes_too_long_cancels_its_handler(clock: Any, links: Any) -> None:
    ended = asyncio.Event()

    async def hang(request: Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    session, _ = await links(prepare=lambda agent: agent.handle("hang", hang), clock=clock)
    call = asyncio.ensure_future(session.call("hang", timeout=3))
    await clock.advance(2.9)
    assert not call.done()
    await clock.advance(0.2)
    with pytest.raises(LinkTimeoutError, match="hang: no answer within 3 s"):
        await call
    await asyncio.wait_for(ended.wait(), 30)


async def test_a_source_that_fails_half_way_gives_no_whole_payload(links: Any) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise NoSpaceError("the source is gone")

    async def half(request: Request) -> Reply:
        return Reply({}, broken())

    def prepare(agent: Link) -> None:
        serve(agent)
        agent.handle("half", half)

    session, _ = await links(prepare=prepare)
    with pytest.raises(NoSpaceError, match="the source is gone"):
        await session.call("swallow", {}, broken(), timeout=5)
    answer = await session.call("half", timeout=5)
    with pytest.raises(NoSpaceError, match="the source is gone"):
        await answer.payload.read()
    assert session.lost is None


async def test_a_slow_reader_stops_only_its_own_writer(streams: Streams, links: Any) -> None:
    gate = asyncio.Event()
    sent = 0

    async def slow(request: Request) -> Mapping[str, Any]:
        await gate.wait()
        return {"size": len(await request.payload.read())}

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 128 * 1024
            yield bytes(128 * 1024)

    def prepare(agent: Link) -> None:
        serve(agent)
        agent.handle("slow", slow)

    session, _ = await links(streams(), prepare=prepare, limits=Limits(window=512 * 1024))
    stuck = asyncio.ensure_future(session.call("slow", {}, endless(), timeout=30))
    for _ in range(20):
        answer = await session.call("swallow", {}, bytes(600_000), timeout=5)
        assert answer.body == {"size": 600_000}
    assert sent <= 512 * 1024 + 2 * 128 * 1024
    gate.set()
    assert (await stuck).body == {"size": 64 * 128 * 1024}


async def test_a_handler_need_not_read_its_payload(links: Any) -> None:
    async def deaf(request: Request) -> Mapping[str, Any]:
        return {"ok": True}

    session, _ = await links(prepare=lambda agent: agent.handle("deaf", deaf))
    for _ in range(3):
        answer = await session.call("deaf", {}, pieces(bytes(20 * MIB), MIB), timeout=5)
        assert answer.body == {"ok": True}
    await session.ping(5)
    assert not session._calls._lanes


async def test_a_reply_that_is_not_wanted_stops_its_sender(links: Any) -> None:
    stopped = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(100_000)
        finally:
            stopped.set()

    async def flood(request: Request) -> Reply:
        return Reply({}, source())

    session, _ = await links(prepare=lambda agent: agent.handle("flood", flood))
    answer = await session.call("flood", timeout=5)
    assert len(await answer.payload.exactly(1000)) == 1000
    await answer.payload.aclose()
    await asyncio.wait_for(stopped.wait(), 30)
    with pytest.raises(LinkLostError):
        await answer.payload.read()


async def test_a_payload_that_stands_still_raises_in_time(clock: Any, links: Any) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.Event().wait()

    async def hang(request: Request) -> Reply:
        return Reply({}, source())

    session, _ = await links(prepare=lambda agent: agent.handle("hang", hang), clock=clock)
    answer = await session.call("hang", timeout=5)
    assert await answer.payload.__anext__() == b"abc"
    reading = asyncio.ensure_future(answer.payload.read())
    await clock.advance(61)
    with pytest.raises(LinkTimeoutError, match="a payload"):
        await reading


async def test_exactly_splits_a_payload_and_says_when_it_is_short(links: Any) -> None:
    async def split(request: Request) -> Mapping[str, Any]:
        head = await request.payload.exactly(request.body["head"])
        return {"head": head.decode(), "rest": len(await request.payload.read())}

    session, _ = await links(prepare=lambda agent: agent.handle("split", split))
    answer = await session.call("split", {"head": 5}, pieces(b"abcdefgh", 3), timeout=5)
    assert answer.body == {"head": "abcde", "rest": 3}
    assert (await session.call("split", {"head": 0}, timeout=5)).body == {"head": "", "rest": 0}
    with pytest.raises(ProtocolError, match="a payload of 3 bytes where 9 were announced"):
        await session.call("split", {"head": 9}, b"abc", timeout=5)


async def test_notices_arrive_in_order_also_before_somebody_listens(links: Any) -> None:
    session, agent = await links()
    got: list[int] = []
    for number in range(10):
        await agent.notify("event", {"n": number})
    await session.ping(5)
    session.on_notice("event", lambda body: got.append(body["n"]))
    assert got == list(range(10))
    for number in range(10, 500):
        await agent.notify("event", {"n": number})
    await agent.ping(5)
    assert got == list(range(500))


async def test_more_calls_than_allowed_are_refused_one_by_one(links: Any) -> None:
    gate = asyncio.Event()

    async def wait(request: Request) -> None:
        await gate.wait()

    session, _ = await links(prepare=lambda agent: agent.handle("wait", wait),
                             limits=Limits(calls=3))
    calls = [asyncio.ensure_future(session.call("wait", timeout=5)) for _ in range(5)]
    await session.ping(5)
    gate.set()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) is ProtocolError for one in done] == [False, False, False, True, True]


async def test_close_ends_the_other_side_with_the_reason(streams: Streams, links: Any) -> None:
    session, agent = await links(streams())
    await session.close("enough")
    assert "closed the link: enough" in (await asyncio.wait_for(agent.closed, 30)).message
    with pytest.raises(LinkLostError, match="closed here: enough"):
        await session.call("x", timeout=1)
    with pytest.raises(LinkLostError, match="enough"):
        await agent.notify("x", {})
    await session.close()


# -- byte channels ----------------------------------------------------------------------------


async def command(body: Mapping[str, Any], channel: Channel) -> Mapping[str, Any]:
    """Like an exec: input comes back on both streams, notes are counted."""
    if body.get("refuse"):
        raise AgentError("there is no such program", file="prog")
    channel.accept({"pid": 7})
    notes = 0
    while (item := await channel.receive()) is not None:
        if isinstance(item, Note):
            notes += 1
        else:
            await channel.send(item.data)
            await channel.send(item.data.upper(), side=True)
    return {"status": 3, "notes": notes}


async def relay(body: Mapping[str, Any], channel: Channel) -> None:
    while data := await channel.read():
        await channel.write(data)
    await channel.end()


def serve_channels(link: Link) -> None:
    link.handle_channel("exec", command)
    link.handle_channel("relay", relay)


async def test_a_channel_carries_two_streams_notes_and_a_result(streams: Streams,
                                                               links: Any) -> None:
    session, _ = await links(streams(), prepare=serve_channels)
    channel, said = await session.open("exec", {}, timeout=5)
    assert said == {"pid": 7}
    await channel.note({"rows": 24})
    await channel.send(b"abc")
    assert await channel.receive() == Data(b"abc")
    assert await channel.receive() == Data(b"ABC", side=True)
    await channel.end()
    assert await channel.receive() is None
    assert await channel.receive() is None
    assert await channel.result() == {"status": 3, "notes": 1}


async def test_a_refused_channel_raises_at_open(links: Any) -> None:
    session, _ = await links(prepare=serve_channels)
    with pytest.raises(AgentError, match="no such program") as caught:
        await session.open("exec", {"refuse": True}, timeout=5)
    assert caught.value.file == "prog"
    assert not session._calls._lanes


async def test_a_channel_is_a_byte_stream_with_flow_control(streams: Streams, links: Any) -> None:
    session, _ = await links(streams(), prepare=serve_channels)
    channel, _ = await session.open("relay", timeout=5)
    data = pattern(5 * MIB)

    async def send() -> None:
        await channel.write(data)
        await channel.end()

    sending = asyncio.ensure_future(send())
    got = b"".join([piece async for piece in _all(channel)])
    await sending
    assert got == data
    assert await channel.result() == {}


async def _all(channel: Channel) -> AsyncIterator[bytes]:
    while data := await channel.read(100_000):
        yield data


async def test_both_streams_of_a_channel_may_be_written_at_once(links: Any) -> None:
    size = 500_000

    async def noisy(body: Mapping[str, Any], channel: Channel) -> None:
        await asyncio.gather(channel.send(b"o" * size), channel.send(b"e" * size, side=True))

    session, _ = await links(prepare=lambda agent: agent.handle_channel("noisy", noisy),
                             limits=Limits(window=10_000))
    channel, _ = await session.open("noisy", timeout=5)
    got = {False: 0, True: 0}
    while (item := await asyncio.wait_for(channel.receive(), 30)) is not None:
        assert isinstance(item, Data)
        got[item.side] += len(item.data)
    assert got == {False: size, True: size}


async def test_what_was_written_before_the_result_is_still_read(links: Any) -> None:
    async def burst(body: Mapping[str, Any], channel: Channel) -> Mapping[str, Any]:
        for number in range(50):
            await channel.send(b"%04d" % number)
        return {"status": 0}

    session, _ = await links(prepare=lambda agent: agent.handle_channel("burst", burst))
    channel, _ = await session.open("burst", timeout=5)
    assert await channel.result() == {"status": 0}
    got = b"".join([piece async for piece in _all(channel)])
    assert got == b"".join(b"%04d" % number for number in range(50))
    with pytest.raises(LinkLostError):
        await channel.write(b"late")


async def test_closing_a_channel_cancels_who_serves_it(links: Any) -> None:
    ended = asyncio.Event()

    async def hang(body: Mapping[str, Any], channel: Channel) -> None:
        channel.accept()
        try:
            await channel.receive()
        finally:
            ended.set()

    session, _ = await links(prepare=lambda agent: agent.handle_channel("hang", hang))
    channel, _ = await session.open("hang", timeout=5)
    await channel.close()
    await asyncio.wait_for(ended.wait(), 30)
    with pytest.raises(LinkLostError):
        await channel.read()
    await channel.close()
    await session.ping(5)


async def test_what_json_can_hold_crosses_unchanged(links: Any) -> None:
    session, _ = await links(prepare=serve)
    body = {"a": [1, 2.5, None, True, {"ü\n": "\udc80"}], "b": {}}
    answer = await session.call("echo", body, timeout=5)
    assert json.dumps({k: answer.body[k] for k in body}) == json.dumps(body)
