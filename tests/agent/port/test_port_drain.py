"""Draining, holding and back-pressure of the relay, against real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from hyperbox_agent.supervise.peers import look_up
from hyperbox_agent.supervise.port import Port

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_an_event_stream_is_cut_at_the_end_of_the_drain(port, tools) -> None:
    async def ticks(reader, writer) -> None:
        await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"8\r\ndata: 1\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    await port.switch(1, (await tools.backend(ticks)).address)
    reader, writer = await tools.connect(port)
    writer.write(GET)
    await reader.readuntil(b"data: 1\n")
    await port.switch(2, (await tools.backend("new")).address)
    drained = await port.drain(1, 0.15)
    assert drained.cut == 1
    assert drained.ms >= 140
    assert not (await reader.read()).endswith(b"0\r\n\r\n")
    assert (await port.stats()).numbers[1].in_flight == 0


async def test_a_request_without_an_answer_is_told_so_at_the_end_of_the_drain(port, tools) -> None:
    async def sleeps(reader, _writer) -> None:
        await reader.read()
        await asyncio.sleep(60)

    await port.switch(1, (await tools.backend(sleeps)).address)
    call = asyncio.ensure_future(tools.ask(await tools.connect(port)))

    async def sent() -> bool:
        return (await port.stats()).numbers[1].in_flight == 1

    await tools.until(sent)
    await port.switch(2, None)
    assert (await port.drain(1, 0.05)).cut == 1
    assert b"was replaced" in await call


async def test_a_third_drain_cuts_the_oldest(port, tools) -> None:
    async def hangs(reader, writer) -> None:
        await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nopen")
        await reader.read()

    drains, readers = [], []
    for number in (1, 2, 3):
        await port.switch(number, (await tools.backend(hangs)).address)
        reader, writer = await tools.connect(port)
        writer.write(GET)
        await reader.readuntil(b"open")
        readers.append(reader)
        await port.switch(number + 1, None)
        drains.append(asyncio.ensure_future(port.drain(number, 60)))
        await port.stats()
    assert (await asyncio.wait_for(drains[0], 30)).cut == 1
    assert await readers[0].read() == b""
    assert not drains[1].done()
    assert not drains[2].done()
    for drain in drains[1:]:
        drain.cancel()


async def test_a_hold_lets_requests_end_and_none_begin(port, tools) -> None:
    gate = asyncio.Event()

    async def slow(reader, writer) -> None:
        while True:
            await tools.read_request(reader)
            await gate.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await port.switch(1, (await tools.backend(slow)).address)
    kept = await tools.connect(port)
    first = asyncio.ensure_future(tools.ask(kept))

    async def sent() -> bool:
        return (await port.stats()).numbers[1].in_flight == 1

    await tools.until(sent)
    assert (await port.hold(0.02)).busy == 1
    holding = asyncio.ensure_future(port.hold(5))
    await port.stats()
    gate.set()
    assert (await holding).busy == 0
    assert await first == b"ok"
    more = [asyncio.ensure_future(tools.ask(streams))
            for streams in (kept, await tools.connect(port))]

    async def waiting() -> bool:
        return (await port.stats()).waiting == 2

    await tools.until(waiting)
    await port.release()
    assert await asyncio.gather(*more) == [b"ok", b"ok"]


async def test_a_hold_does_not_wait_for_streams(port, tools) -> None:
    async def stream(reader, writer) -> None:
        await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await reader.read()

    await port.switch(1, (await tools.backend(stream)).address)
    reader, writer = await tools.connect(port)
    writer.write(GET)
    await reader.readuntil(b"data: 1")
    held = await port.hold(20)
    assert held.busy == 0
    assert held.waited_ms < 15_000
    await port.release()


async def stands_still(amount: Callable[[], int]) -> None:
    """Wait until every buffer on the way is full: nothing has moved for a while."""
    deadline = time.monotonic() + 30
    seen, since = amount(), time.monotonic()
    while time.monotonic() - since < 0.2:
        assert time.monotonic() < deadline, "it goes on and on"
        await asyncio.sleep(0.01)
        if amount() != seen:
            seen, since = amount(), time.monotonic()


def holder_memory(port: Port) -> int:
    """The holder's private memory in bytes."""
    status = Path(f"/proc/{port.holder_pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


async def test_a_slow_reader_costs_the_holder_no_memory(port, tools) -> None:
    piece = bytes(range(256)) * 256
    count = 320
    written = 0

    async def large(reader, writer) -> None:
        await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (count * len(piece)))
        nonlocal written
        for _ in range(count):
            writer.write(piece)
            written += 1
            await writer.drain()

    await port.switch(1, (await tools.backend(large)).address)
    before = holder_memory(port)
    reader, writer = await tools.connect(port)
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    await stands_still(lambda: written)
    assert 0 < written < count
    assert holder_memory(port) - before < 2_000_000
    found = hashlib.sha256(await reader.readexactly(count * len(piece))).digest()
    assert found == hashlib.sha256(piece * count).digest()


async def test_a_slow_instance_costs_the_holder_no_memory(port, tools) -> None:
    sent = bytes(range(256)) * 256 * 320
    go = asyncio.Event()

    async def slow(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        digest = hashlib.sha256(await reader.readexactly(len(sent))).hexdigest()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest.encode())

    await port.switch(1, (await tools.backend(slow)).address)
    before = holder_memory(port)
    reader, writer = await tools.connect(port)
    writer.write(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(sent) + sent)
    await stands_still(writer.transport.get_write_buffer_size)
    assert writer.transport.get_write_buffer_size() > 0
    assert holder_memory(port) - before < 2_000_000
    go.set()
    assert await tools.read_response(reader) == hashlib.sha256(sent).hexdigest().encode()


async def test_an_early_refusal_of_an_upload_arrives_whole(port, tools) -> None:
    answer = b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 40000\r\n\r\n" + b"n" * 40000

    async def refuses(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    await port.switch(1, (await tools.backend(refuses)).address)
    reader, writer = await tools.connect(port)
    writer.write(b"PUT / HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n" + bytes(4_000_000))
    assert await asyncio.wait_for(reader.read(), 30) == answer


async def test_a_client_may_end_its_side_before_the_answer(port, tools) -> None:
    await port.switch(1, (await tools.backend("a")).address)
    reader, writer = await tools.connect(port)
    writer.write(GET + GET)
    writer.write_eof()
    assert (await asyncio.wait_for(reader.read(), 30)).count(b"a GET / HTTP/1.1 0") == 2


async def test_the_peers_table_names_the_client(port, tools) -> None:
    async def who(reader, writer) -> None:
        local = writer.get_extra_info("peername")[1]
        await tools.read_request(reader)
        host, number = look_up(port.peers_path, local)
        text = f"{host} {number}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        await reader.read()

    backend = await tools.backend(who)
    await port.switch(1, backend.address)
    streams = await tools.connect(port)
    name = streams[1].get_extra_info("sockname")
    assert await tools.ask(streams) == f"127.0.0.1 {name[1]}".encode()
    streams[1].close()
    local = backend.peers[0][1]
    await tools.until(lambda: look_up(port.peers_path, local) is None)
