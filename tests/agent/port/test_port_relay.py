"""The relay against real sockets: messages, switches, streams, failures."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox_agent.clock import SystemClock
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
    assert await asyncio.wait_for(reader.read(), 30) == answer


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


def handshake_retries() -> int:
    """How many handshakes this machine has tried again."""
    names, numbers = (line.split() for line in Path("/proc/net/netstat").read_text().splitlines()
                      if line.startswith("TcpExt:"))
    return int(dict(zip(names, numbers, strict=False))["TCPSynRetrans"])


async def test_a_full_queue_of_an_instance_delays_nobody_by_a_second(port, tools) -> None:
    # A backlog of 1 (socketserver has 5): the kernel drops further handshakes, and a client that
    # waits for its second try waits for 1 s. On a busy machine one round may last that long
    # without a second try; other programs may make some: neither happens in every round.
    for number in range(1, 6):
        calls = [asyncio.ensure_future(tools.ask(await tools.connect(port))) for _ in range(120)]
        backend = await tools.backend("a", backlog=1)
        retries, begin = handshake_retries(), asyncio.get_running_loop().time()
        await port.switch(number, backend.address)
        await asyncio.gather(*calls)
        assert (await port.stats()).numbers[number].failed == 0
        quick = asyncio.get_running_loop().time() - begin < 0.9
        if quick or handshake_retries() == retries:
            return
        await port.switch(number + 1, None)
    raise AssertionError("handshakes were tried again in each round")


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
    arrived = asyncio.Event()

    async def dies(reader, writer) -> None:
        await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        if how == "reset":
            # A reset throws away what the other side has not read yet.
            await arrived.wait()
            reset(writer)

    await port.switch(1, (await tools.backend(dies)).address)
    reader, writer = await tools.connect(port)
    writer.write(GET)
    await asyncio.wait_for(reader.readuntil(b"half"), 30)
    arrived.set()
    assert await asyncio.wait_for(reader.read(), 30) == b""
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
    # And at once from then on. Who waited for its own second would do so each time.
    times = []
    for _ in range(5):
        begin = asyncio.get_running_loop().time()
        assert b"does not accept connections" in await tools.ask(await tools.connect(port))
        times.append(asyncio.get_running_loop().time() - begin)
    assert min(times) < 0.9
    await port.switch(2, (await tools.backend("b")).address)
    assert (await tools.ask(await tools.connect(port))).startswith(b"b")


def used_up(port: int) -> int:
    """Connections to ``port`` whose own port can't be used for a minute (TIME_WAIT is 06)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == "06" and row[2].endswith(f":{port:04X}") for row in rows)


@pytest.mark.parametrize("word", [b"Connection: close", b"Connection: keep-alive"])
async def test_connections_to_an_instance_use_up_no_ports(port, tools, word: bytes) -> None:
    """A program that answers and closes is waited for: a load of requests would find none free."""
    async def once(reader, writer) -> None:
        await tools.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    backend = await tools.backend(once)
    await port.switch(1, backend.address)
    for _ in range(30):
        streams = await tools.connect(port)
        request = b"GET / HTTP/1.1\r\nHost: a\r\n" + word + b"\r\n\r\n"
        assert await tools.ask(streams, request) == b"ok"
        assert await streams[0].read() == b""
    assert backend.accepted == 30
    # One whose end comes late, on a machine that is busy, is parted from first.
    assert used_up(backend.address[1]) <= 3


async def test_a_program_that_does_not_close_is_not_waited_for_long(port, tools) -> None:
    backend = await tools.backend("stays")
    await port.switch(1, backend.address)
    streams = await tools.connect(port)
    answer = await tools.ask(streams, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"stays")
    assert await asyncio.wait_for(streams[0].read(), 0.4) == b"", "the client waits for nobody"
    await asyncio.wait_for(tools.until(lambda: not backend._writers), 2.0)
    # By now it is known for one that keeps connections open.
    streams = await tools.connect(port)
    await tools.ask(streams, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    await asyncio.wait_for(tools.until(lambda: not backend._writers), 0.3)
    assert backend.accepted == 2


async def test_a_connection_that_is_parted_from_holds_up_no_drain(port, tools) -> None:
    backend, new = await tools.backend("stays"), await tools.backend("new")
    await port.switch(1, backend.address)
    streams = await tools.connect(port)
    await tools.ask(streams, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    await port.switch(2, new.address)
    drained = await port.drain(1, 5)
    assert drained.cut == 0
    assert drained.ms < 400
