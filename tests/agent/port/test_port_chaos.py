"""Clients and instances that do everything at odd moments: the holder outlives them all."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from pathlib import Path

import pytest

from hyperbox_agent.supervise.port import Port

CLIENTS = 25
ROUNDS = 12


def part_of(chance: random.Random, data: bytes) -> bytes:
    """Mostly all of it, sometimes only its beginning."""
    return data if chance.random() < 0.85 else data[:chance.randrange(len(data) + 1)]


def drop(chance: random.Random, writer: asyncio.StreamWriter) -> None:
    """Close in order or by a reset."""
    if chance.random() < 0.5 and not writer.transport.is_closing():
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def odd_instance(chance: random.Random, reader: asyncio.StreamReader,
                       writer: asyncio.StreamWriter) -> None:
    """Answers, half answers, answers early or twice, upgrades, hangs, closes, resets."""
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(300000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhello",
        b"nonsense\r\n\r\n",
    ]
    while chance.random() < 0.95:
        if chance.random() < 0.9 and not await reader.read(chance.choice((1, 50, 5000))):
            break
        writer.write(part_of(chance, chance.choice(answers)))
        await asyncio.sleep(chance.choice((0, 0, 0.002)))
    drop(chance, writer)


async def odd_client(chance: random.Random, address: tuple[str, int]) -> None:
    """Asks well and badly, slowly, pipelined, with bodies too short, and leaves when it likes."""
    requests = [
        b"GET / HTTP/1.1\r\n\r\n" * 3,
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nbroken",
        b"PUT / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + bytes(200000),
        b"HEAD / HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01TLS",
    ]
    reader, writer = await asyncio.open_connection(*address)
    try:
        for _ in range(chance.randrange(1, 5)):
            writer.write(part_of(chance, chance.choice(requests)))
            if chance.random() < 0.1:
                writer.write_eof()
                break
            if chance.random() < 0.7:
                await asyncio.wait_for(reader.read(chance.choice((1, 100000))), 0.02)
    except (asyncio.TimeoutError, OSError):
        pass
    finally:
        drop(chance, writer)


@pytest.mark.parametrize("seed", range(3))
async def test_the_holder_outlives_odd_clients_and_instances(
    port: Port, tools, seed: int,
) -> None:
    chance = random.Random(seed)
    descriptors = Path(f"/proc/{port.holder_pid}/fd")
    idle = len(os.listdir(descriptors))
    holder = port.holder_pid

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await odd_instance(chance, reader, writer)

    backends = [await tools.backend(handler, backlog=3) for _ in range(3)]
    for number in range(ROUNDS):
        clients = [odd_client(chance, port.address) for _ in range(CLIENTS)]
        running = asyncio.gather(*clients)
        await port.switch(number, chance.choice([*(it.address for it in backends), None]))
        if chance.random() < 0.3:
            await port.hold(0.005)
            await port.release()
        await running
        await port.drain(number - 1, 0.005)
    # It still does its work, and those who wait with too much to be read are let go.
    await port.switch(ROUNDS, (await tools.backend("well")).address)
    await port.drain(ROUNDS - 1, 0)
    streams = await tools.connect(port)
    assert (await tools.ask(streams)).startswith(b"well")
    streams[1].close()

    async def all_closed() -> bool:
        stats = await port.stats()
        # Those to instances that were about to close are waited for a moment longer.
        return (stats.connections == stats.waiting == 0
                and len(os.listdir(descriptors)) == idle)

    await tools.until(all_closed)
    assert port.holder_pid == holder


async def test_thousands_of_connections_are_held_at_once(port: Port, tools) -> None:
    backend = await tools.backend("a")
    await port.switch(1, backend.address)
    count = 1500
    idle = [await tools.connect(port) for _ in range(count)]

    async def accepted() -> bool:
        return (await port.stats()).connections == count

    await tools.until(accepted)
    assert backend.accepted == 0
    for streams in idle[:: count // 50]:
        assert (await tools.ask(streams)).startswith(b"a")
    status = Path(f"/proc/{port.holder_pid}/status").read_text()
    assert int(status.partition("RssAnon:")[2].split()[0]) < 16_000
