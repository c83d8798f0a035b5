"""The relay against real sockets: messages, switches, streams, failures."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.supervise.peers import look_up
from hyperbox_agent.supervise.port import Port

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as a kernel does for a process that left bytes unread."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_a_kept_connection_goes_to_the_new_instance_after_a_switch(port, tools) -> None:
    old, new = await tools.backend("old"), await tools.backend("new")
    await port.switch(1, old.address)
    streams = await tools.connect(port)
    assert (await tools.ask(streams)).startswith(b"old")
    await port.switch(2, new.address)
    assert (await tools.ask(streams)).startswith(b"new")
    assert (await port.drain(1, 5)).cut == 0
    assert old.accepted == new.accepted == 1


async def test_a_request_in_flight_ends_on_the_instance_that_began_it(port, tools) -> None:
    gate = asyncio.Event()

    async def slow(reader, writer) -> None:
        await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nold")
        await gate.wait()
        writer.write(b"-end")
        await reader.read()

    old, new = await tools.backend(slow), await tools.backend("new")
    await port.switch(1, old.address)
    streams = await tools.connect(port)
    streams[1].write(GET)
    await streams[0].readuntil(b"old")
    await port.switch(2, new.address)
    drain = asyncio.ensure_future(port.drain(1, 8))
    assert (await tools.ask(await tools.connect(port))).startswith(b"new")
    assert not drain.done()
    gate.set()
    assert await streams[0].readexactly(4) == b"-end"
    assert (await drain).cut == 0
    assert (await tools.ask(streams)).startswith(b"new")


async def test_pipelined_requests_are_answered_in_order(port, tools) -> None:
    await port.switch(1, (await tools.backend("a")).address)
    reader, writer = await tools.connect(port)
    request = b"POST /%d HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    writer.write(b"".join(request % n for n in range(20)))
    for n in range(20):
        assert await tools.read_response(reader) == b"a POST /%d HTTP/1.1 3" % n


async def test_a_request_may_come_byte_by_byte(port, tools) -> None:
    backend = await tools.backend("a")
    await port.switch(1, backend.address)
    reader, writer = await tools.connect(port)
    for byte in b"POST /x HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody":
        writer.write(bytes([byte]))
        await asyncio.sleep(0.001)
    assert await tools.read_response(reader) == b"a POST /x HTTP/1.1 4"


async def test_an_idle_connection_reaches_no_instance(port, tools) -> None:
    old, new = await tools.backend("old"), await tools.backend("new")
    await port.switch(1, old.address)
    streams = await tools.connect(port)
    streams[1].write(b"GET / HT")

    async def connected() -> bool:
        return (await port.stats()).connections == 1

    await tools.until(connected)
    await port.switch(2, new.address)
    assert (await tools.ask(streams, b"TP/1.1\r\n\r\n")).startswith(b"new")
    assert old.accepted == 0


async def test_expect_100_continue(port, tools) -> None:
    async def careful(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body)
        await app(reader, writer)

    app = tools.app("next")
    backend = await tools.backend(careful)
    await port.switch(1, backend.address)
    reader, writer = streams = await tools.connect(port)
    writer.write(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert await tools.ask(streams, b"hello") == b"hello"
    assert (await tools.ask(streams)).startswith(b"next")
    assert backend.accepted == 1


@pytest.mark.parametrize(("request_", "answer"), [
    (b"HEAD / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
    (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
    (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
    (GET, b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\n0\r\nA: b\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"),
])
async def test_the_connection_is_kept_behind(port, tools, request_: bytes, answer: bytes) -> None:
    async def fixed(reader, writer) -> None:
        assert await reader.readexactly(len(request_)) == request_
        writer.write(answer)
        await tools.app("next")(reader, writer)

    backend = await tools.backend(fixed)
    await port.switch(1, backend.address)
    reader, writer = streams = await tools.connect(port)
    writer.write(request_)
    assert await reader.readexactly(len(answer)) == answer
    assert (await tools.ask(streams)).startswith(b"next")
    assert backend.accepted == 1


@pytest.mark.parametrize(("request_", "answer"), [
    (b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    (GET, b"HTTP/1.0 200 OK\r\n\r\nuntil the end"),
    (GET, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"),
    (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
])
async def test_the_connection_is_closed_behind(
    port, tools, request_: bytes, answer: bytes,
) -> None:
    async def fixed(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    await port.switch(1, (await tools.backend(fixed)).address)
    reader, writer = await tools.connect(port)
    writer.write(request_)
    assert await asyncio.wait_for(reader.read(), 5) == answer


async def test_an_upgrade_passes_bytes_both_ways_until_the_drain_ends(port, tools) -> None:
    async def shout(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhello ")
        while data := await reader.read(100):
            writer.write(data.upper())

    await port.switch(1, (await tools.backend(shout)).address)
    reader, writer = await tools.connect(port)
    # The first bytes of the new protocol may follow the request at once.
    writer.write(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nearly ")
    assert (await reader.readuntil(b"EARLY ")).endswith(b"\r\n\r\nhello EARLY ")
    new = await tools.backend("new")
    await port.switch(2, new.address)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.readexactly(18) == b"GET / HTTP/1.1\r\n\r\n"
    assert (await port.stats()).numbers[1].streams == 1
    assert (await port.drain(1, 0.05)).cut == 1
    assert await reader.read() == b""
    assert new.accepted == 0


@pytest.mark.parametrize("first", [
    b"\x16\x03\x01\x00\x05hello",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"hello\n",
])
async def test_opaque_bytes_stay_with_one_instance(port, tools, first: bytes) -> None:
    async def echo(reader, writer) -> None:
        while data := await reader.read(1000):
            writer.write(data)

    old, new = await tools.backend(echo), await tools.backend("new")
    await port.switch(1, old.address)
    reader, writer = await tools.connect(port)
    writer.write(first)
    assert await reader.readexactly(len(first)) == first
    await port.switch(2, new.address)
    writer.write(GET)
    assert await reader.readexactly(len(GET)) == GET
    writer.write_eof()
    assert await reader.read() == b""
    assert (old.accepted, new.accepted) == (1, 0)


async def test_requests_wait_while_nothing_is_live(port, tools) -> None:
    waiting = [asyncio.ensure_future(tools.ask(await tools.connect(port))) for _ in range(50)]

    async def all_wait() -> bool:
        return (await port.stats()).waiting == 50

    await tools.until(all_wait)
    await port.switch(1, (await tools.backend("a")).address)
    assert set(await asyncio.gather(*waiting)) == {b"a GET / HTTP/1.1 0"}
    stats = await port.stats()
    assert stats.waiting == 0
    assert stats.numbers[1].requests == 50
    assert stats.numbers[1].longest_wait_ms > 0


async def test_a_client_that_leaves_while_it_waits_is_forgotten(port, tools) -> None:
    _reader, writer = await tools.connect(port)
    writer.write(GET)

    async def waits() -> bool:
        return (await port.stats()).waiting == 1

    async def none_left() -> bool:
        stats = await port.stats()
        return stats.waiting == stats.connections == 0

    await tools.until(waits)
    writer.close()
    await tools.until(none_left)
    backend = await tools.backend("a")
    await port.switch(1, backend.address)
    assert backend.accepted == 0


async def test_a_wait_ends_with_503_where_a_limit_is_set(run_dir, tools) -> None:
    port = await Port.open("127.0.0.1", 0, run_dir, clock=SystemClock(), max_wait=0.1)
    try:
        answer = await tools.ask(await tools.connect(port))
    finally:
        await port.close()
    assert b"No version of the program is ready" in answer


async def test_a_full_queue_of_an_instance_delays_nobody_by_a_second(port, tools) -> None:
    # A backlog of 1 (socketserver has 5): the kernel drops further handshakes.
    calls = [asyncio.ensure_future(tools.ask(await tools.connect(port))) for _ in range(120)]
    backend = await tools.backend("a", backlog=1)
    begin = asyncio.get_running_loop().time()
    await port.switch(1, backend.address)
    await asyncio.gather(*calls)
    assert asyncio.get_running_loop().time() - begin < 0.9
    assert (await port.stats()).numbers[1].failed == 0


async def test_an_instance_that_closes_idle_connections_does_not_close_the_clients(
    port, tools,
) -> None:
    backend = await tools.backend("a")
    await port.switch(1, backend.address)
    streams = await tools.connect(port)
    for round_ in range(1, 4):
        assert (await tools.ask(streams)).startswith(b"a")
        assert backend.accepted == round_
        backend.close_connections()
    assert (await port.stats()).numbers[1].failed == 0


async def test_a_request_that_a_closing_instance_never_read_is_sent_again(port, tools) -> None:
    second = asyncio.Event()

    async def once(reader, writer) -> None:
        await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
        if backend.accepted > 1:
            return
        # Deaf from here: the next request comes to a socket that nobody reads.
        reader._transport.pause_reading()
        await second.wait()

    backend = await tools.backend(once)
    await port.switch(1, backend.address)
    streams = await tools.connect(port)
    assert await tools.ask(streams) == b"one"
    call = asyncio.ensure_future(tools.ask(
        streams, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"))

    async def sent() -> bool:
        return (await port.stats()).numbers[1].requests == 2

    await tools.until(sent)
    second.set()
    assert await call == b"one"
    assert backend.accepted == 2
    assert (await port.stats()).numbers[1].failed == 0


@pytest.mark.parametrize(("method", "times"), [(b"POST", 1), (b"GET", 2)])
async def test_only_what_may_be_repeated_is_repeated_after_it_was_read(
    port, tools, method: bytes, times: int,
) -> None:
    seen = []

    async def dies(reader, writer) -> None:
        head, _ = await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        head, _ = await tools.read_request(reader)
        seen.append(head)

    async def other(reader, writer) -> None:
        if backend.accepted == 1:
            await dies(reader, writer)
        else:
            seen.append((await tools.read_request(reader))[0])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend = await tools.backend(other)
    await port.switch(1, backend.address)
    streams = await tools.connect(port)
    await tools.ask(streams)
    answer = await tools.ask(streams, method + b" / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
    assert len(seen) == times
    assert answer == (b"ok" if times == 2 else
                      b"hyperbox: The program closed the connection before it answered.\n")


async def test_an_instance_that_dies_before_it_answers_costs_a_502(port, tools) -> None:
    async def dies(reader, writer) -> None:
        await tools.read_request(reader)

    await port.switch(1, (await tools.backend(dies)).address)
    reader, writer = await tools.connect(port)
    writer.write(GET)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert answer.endswith(b"hyperbox: The program closed the connection before it answered.\n")
    assert (await port.stats()).numbers[1].failed == 1


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_instance_that_dies_amid_an_answer_ends_the_connection(port, tools, how) -> None:
    async def dies(reader, writer) -> None:
        await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        if how == "reset":
            await asyncio.sleep(0.05)
            reset(writer)

    await port.switch(1, (await tools.backend(dies)).address)
    reader, writer = await tools.connect(port)
    writer.write(GET)
    assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"half")
    assert (await port.stats()).numbers[1].failed == 1


@pytest.fixture
def refusing() -> Iterator[socket.socket]:
    """A port that is bound, so that nobody else gets it, and not listened on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


async def test_a_refusing_instance_is_tried_again_for_a_moment(port, tools, refusing) -> None:
    await port.switch(1, refusing.getsockname())
    call = asyncio.ensure_future(tools.ask(await tools.connect(port)))
    await asyncio.sleep(0.1)
    await tools.backend("late", sock=refusing.dup())
    assert (await call).startswith(b"late")


async def test_an_instance_that_goes_on_refusing_costs_a_502(port, tools, refusing) -> None:
    await port.switch(1, refusing.getsockname())
    assert b"does not accept connections" in await tools.ask(await tools.connect(port))
    # And at once from then on.
    begin = asyncio.get_running_loop().time()
    assert b"does not accept connections" in await tools.ask(await tools.connect(port))
    assert asyncio.get_running_loop().time() - begin < 0.5
    await port.switch(2, (await tools.backend("b")).address)
    assert (await tools.ask(await tools.connect(port))).startswith(b"b")


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
    assert 140 <= drained.ms < 2000
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
    assert (await asyncio.wait_for(drains[0], 5)).cut == 1
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
    held = await port.hold(5)
    assert held.busy == 0
    assert held.waited_ms < 1000
    await port.release()


def holder_memory(port: Port) -> int:
    """The holder's private memory in bytes."""
    status = Path(f"/proc/{port.holder_pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


async def test_a_slow_reader_costs_the_holder_no_memory(port, tools) -> None:
    piece = bytes(range(256)) * 256
    count = 320

    async def large(reader, writer) -> None:
        await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (count * len(piece)))
        for _ in range(count):
            writer.write(piece)
            await writer.drain()

    await port.switch(1, (await tools.backend(large)).address)
    before = holder_memory(port)
    reader, writer = await tools.connect(port)
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.2)  # time to fill every buffer on the way
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
    await asyncio.sleep(0.2)
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
    assert await asyncio.wait_for(reader.read(), 5) == answer


async def test_a_client_may_end_its_side_before_the_answer(port, tools) -> None:
    await port.switch(1, (await tools.backend("a")).address)
    reader, writer = await tools.connect(port)
    writer.write(GET + GET)
    writer.write_eof()
    assert (await asyncio.wait_for(reader.read(), 5)).count(b"a GET / HTTP/1.1 0") == 2


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
