"""A steady load from a process of its own: ``python -m bench.load PORT RATE [--streams]``.

Requests are sent at fixed times whatever the answers do (an open loop: a server that stalls is not
spared the requests that come meanwhile), half on new connections, half on kept ones; each wait
runs from the moment when the request was due. With ``--streams`` an event stream and a websocket
client are open too and connect again when they are closed. Ends when its standard input ends, and
then prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from bench.stats import percentile

TIMEOUT = 20.0
EVENTS = b"GET /events HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
FAILURES: dict[type[BaseException], str] = {
    ConnectionRefusedError: "refused", ConnectionResetError: "reset", BrokenPipeError: "reset",
    asyncio.IncompleteReadError: "empty", asyncio.TimeoutError: "timeout", TimeoutError: "timeout"}

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Follow = Callable[[int, "Stream"], Awaitable[None]]


class Load:
    """What was sent and what came back."""

    def __init__(self, port: int, rate: float) -> None:
        self.port = port
        self.rate = rate
        self.waits: list[float] = []
        self.bodies: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.sent = 0
        self._kept: list[Connection] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Send until ``stop``, then wait for what is still under way."""
        under_way: set[asyncio.Task[None]] = set()
        start = time.perf_counter()
        while not stop.is_set():
            due = start + self.sent / self.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(self._request(due, keep=self.sent % 2 == 1))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            self.sent += 1
        await asyncio.gather(*under_way)
        for _, writer in self._kept:
            writer.close()

    async def _request(self, due: float, *, keep: bool) -> None:
        try:
            status, body = await asyncio.wait_for(self._ask(keep), TIMEOUT)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            self.failed[FAILURES.get(type(error), "error")] += 1
            return
        self.waits.append((time.perf_counter() - due) * 1000)
        if status == 200:
            self.bodies[body] += 1
        else:
            self.failed[str(status)] += 1

    async def _ask(self, keep: bool) -> tuple[int, str]:
        reader, writer = await self._connection(keep)
        try:
            ending = b"\r\n" if keep else b"Connection: close\r\n\r\n"
            writer.write(b"GET / HTTP/1.1\r\nHost: bench\r\n" + ending)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = [int(line.split(b":")[1]) for line in head.split(b"\r\n")
                      if line.startswith(b"content-length:")]
            body = await (reader.readexactly(length[0]) if length else reader.read())
        except BaseException:
            writer.close()
            raise
        if keep and length and b"connection: close" not in head and b"http/1.0" not in head:
            self._kept.append((reader, writer))
        else:
            writer.close()
        return int(head.split()[1]), body.decode(errors="replace")

    async def _connection(self, keep: bool) -> Connection:
        while keep and self._kept:
            reader, writer = self._kept.pop(0)
            # A client drops what its server has closed while it was idle; that is no failure.
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    def report(self) -> dict[str, Any]:
        """The figures, as JSON carries them."""
        waits = self.waits or [0.0]
        shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
        return {"sent": self.sent, "failed": dict(self.failed), "bodies": dict(self.bodies),
                "wait_ms": {name: round(percentile(waits, share), 1)
                            for name, share in shares.items()}}


class Stream:
    """A client of a stream that connects again when it is closed."""

    def __init__(self) -> None:
        self.messages = 0
        self.connections = 0
        self.longest_gap = 0.0
        self._last: float | None = None

    def message(self) -> None:
        """Count one, and the time since the one before."""
        now = time.perf_counter()
        if self._last is not None:
            self.longest_gap = max(self.longest_gap, now - self._last)
        self._last = now
        self.messages += 1

    def report(self) -> dict[str, Any]:
        return {"messages": self.messages, "connections": self.connections,
                "longest_gap_ms": round(self.longest_gap * 1000)}


async def follow_events(port: int, stream: Stream) -> None:
    """Read ``/events`` for ever."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(EVENTS)
                await reader.readuntil(b"\r\n\r\n")
                stream.connections += 1
                while await reader.readuntil(b"\n\n"):
                    stream.message()
            finally:
                writer.close()
        await asyncio.sleep(0.05)


def websocket_follower() -> Follow:
    """A client of ``/ws`` that says something ten times a second and hears it back, for ever.

    Imports its library here, before the load begins: it takes longer than most requests wait.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    async def follow_websocket(port: int, stream: Stream) -> None:
        while True:
            with contextlib.suppress(OSError, WebSocketException, asyncio.TimeoutError):
                async with connect(f"ws://127.0.0.1:{port}/ws", close_timeout=0.2) as socket:
                    stream.connections += 1
                    while True:
                        await socket.send("x")
                        await socket.recv()
                        stream.message()
                        await asyncio.sleep(0.1)
            await asyncio.sleep(0.05)

    return follow_websocket


async def run(port: int, rate: float, follow: dict[str, Follow]) -> dict[str, Any]:
    """Load and streams until standard input ends."""
    stop = asyncio.Event()
    asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read).add_done_callback(
        lambda _: stop.set())
    load = Load(port, rate)
    open_streams = {name: Stream() for name in follow}
    tasks = [asyncio.ensure_future(follow[name](port, stream))
             for name, stream in open_streams.items()]
    await load.run(stop)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return load.report() | {"streams": {name: stream.report()
                                        for name, stream in open_streams.items()}}


def main() -> None:
    """The command line of the load's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("--stream", action="append", default=[],
                        choices=("events", "websocket"))
    args = parser.parse_args()
    makers = {"events": lambda: follow_events, "websocket": websocket_follower}
    follow = {name: makers[name]() for name in args.stream}
    # What the collector would walk again and again during the load is what was imported for it.
    gc.freeze()
    print(json.dumps(asyncio.run(run(args.port, args.rate, follow))))


if __name__ == "__main__":
    main()
