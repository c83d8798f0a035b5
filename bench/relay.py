"""What the relay costs: the same echo server asked directly and through the port holder.

    python bench/relay.py [--requests 1000] [--rounds 6] [--json]

Standard library only. Kept connections and new ones, one client at a time (the wait that a person
feels: p50, p99) and four at once (requests a second). Both ways take turns, and the best round of
each counts: other work on the machine only ever makes it slower.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import select
import socket
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.supervise.port import Port

BODY = b"x" * 128
KEPT = b"HTTP/1.1 200 OK\r\nContent-Length: 128\r\n\r\n" + BODY
CLOSED = b"HTTP/1.1 200 OK\r\nContent-Length: 128\r\nConnection: close\r\n\r\n" + BODY
HEADERS = (
    b"GET /some/path?with=query HTTP/1.1\r\nHost: localhost:8000\r\nAccept: */*\r\n"
    b"User-Agent: bench/1.0 (a browser sends about this much)\r\nAccept-Encoding: gzip, br\r\n"
    b"Accept-Language: en-GB,en;q=0.9\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n"
)
ASK = HEADERS + b"\r\n"
ASK_ONCE = HEADERS + b"Connection: close\r\n\r\n"


def serve(told: Connection) -> None:
    """An echo server that does next to nothing, so that the relay's share shows."""
    door = socket.create_server(("127.0.0.1", 0), backlog=1024)
    door.setblocking(False)
    told.send(door.getsockname())
    poll = select.epoll()
    poll.register(door.fileno(), select.EPOLLIN)
    open_: dict[int, socket.socket] = {}
    while True:
        for fd, _bits in poll.poll():
            if fd == door.fileno():
                sock, _ = door.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_[sock.fileno()] = sock
                poll.register(sock.fileno(), select.EPOLLIN)
                continue
            answer(poll, open_, fd)


def answer(poll: select.epoll, open_: dict[int, socket.socket], fd: int) -> None:
    """One request, one answer."""
    sock = open_[fd]
    try:
        data = sock.recv(65536)
    except OSError:
        data = b""
    if data.endswith(b"close\r\n\r\n"):
        sock.send(CLOSED)
    elif data:
        sock.send(KEPT)
        return
    poll.unregister(fd)
    del open_[fd]
    sock.close()


def ask_kept(address: tuple[str, int], count: int) -> list[float]:
    """Seconds for each of ``count`` requests on one connection."""
    times = []
    with socket.create_connection(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            begin = time.perf_counter()
            sock.send(ASK)
            read_whole(sock, len(KEPT))
            times.append(time.perf_counter() - begin)
    return times


def ask_new(address: tuple[str, int], count: int) -> list[float]:
    """Seconds for each of ``count`` requests, each on a connection of its own."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        with socket.create_connection(address) as sock:
            sock.send(ASK_ONCE)
            read_whole(sock, len(CLOSED))
        times.append(time.perf_counter() - begin)
    return times


def read_whole(sock: socket.socket, size: int) -> None:
    """Read an answer of ``size`` bytes."""
    while size > 0:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("the answer was cut")
        size -= len(data)


def run_many(how: str, address: tuple[str, int], count: int, clients: int) -> float:
    """Requests a second with several client processes."""
    ask = ask_kept if how == "kept" else ask_new
    jobs = [
        multiprocessing.get_context("fork").Process(target=ask, args=(address, count // clients))
        for _ in range(clients)
    ]
    begin = time.perf_counter()
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    return count / (time.perf_counter() - begin)


def figures(address: tuple[str, int], count: int) -> dict[str, float]:
    """All figures of one way to the server."""
    found = {}
    for how, ask in (("kept", ask_kept), ("new", ask_new)):
        ask(address, count // 10)
        times = sorted(ask(address, count))
        found[f"{how}_p50_ms"] = statistics.median(times) * 1000
        found[f"{how}_p99_ms"] = times[int(len(times) * 0.99)] * 1000
        found[f"{how}_per_s"] = run_many(how, address, count, 4)
    return found


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The best of each figure."""
    return {
        key: (max if key.endswith("per_s") else min)(it[key] for it in rounds) for key in rounds[0]
    }


async def measure(count: int, rounds: int) -> dict[str, Any]:
    """Direct against relayed."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    backend = ours.recv()
    with tempfile.TemporaryDirectory() as run_dir:
        port = await Port.open("127.0.0.1", 0, run_dir, clock=SystemClock())
        await port.switch(1, backend)
        found: dict[tuple[str, int], list[dict[str, float]]] = {backend: [], port.address: []}
        for _ in range(rounds):
            for address, past in found.items():
                past.append(await asyncio.to_thread(figures, address, count))
        direct, relayed = best(found[backend]), best(found[port.address])
        stats = await port.stats()
        status = Path(f"/proc/{port.holder_pid}/status").read_text()
        await port.close()
    server.terminate()
    server.join()
    return {
        "direct": direct,
        "relayed": relayed,
        "price_ms": {how: relayed[f"{how}_p50_ms"] - direct[f"{how}_p50_ms"]
                     for how in ("kept", "new")},
        "failed": sum(it.failed for it in stats.numbers.values()),
        "holder_rss_kb": int(status.partition("VmRSS:")[2].split()[0]),
        "cores": os.cpu_count(),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(measure(options.requests, options.rounds))
    if options.json:
        print(json.dumps(found))
        return
    for way in ("direct", "relayed"):
        print(way, "  ".join(f"{key} {value:.3f}" for key, value in found[way].items()))
    price = found["price_ms"]
    print(f"price  kept {price['kept']:.3f} ms  new {price['new']:.3f} ms  "
          f"failed {found['failed']}  holder {found['holder_rss_kb']} kB")


if __name__ == "__main__":
    main()
