"""Small real servers and clients for the port's tests."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.supervise.port import Port

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LIMIT = 30.0
"""No step of a test takes longer than this, whatever the load."""


class Backend:
    """A server on a free port that runs ``handler`` for each connection."""

    def __init__(self, handler: Handler, *, backlog: int = 100) -> None:
        self._handler = handler
        self._backlog = backlog
        self._writers: set[asyncio.StreamWriter] = set()
        self.accepted = 0
        self.peers: list[tuple[str, int]] = []

    async def start(self, sock: socket.socket | None) -> Backend:
        if sock is None:
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._serve, sock=sock, backlog=self._backlog)
        self.address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.peers.append(writer.get_extra_info("peername")[:2])
        self._writers.add(writer)
        try:
            await self._handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def close_connections(self) -> None:
        for writer in self._writers:
            writer.close()

    async def stop(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        # Handlers see the end of their connections and return; a loop closed before that warns.
        for _ in range(3):
            await asyncio.sleep(0)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A request's head and its body (by length only)."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            size = int(line.split(b":")[1])
    return head, await reader.readexactly(size)


def app(name: str) -> Handler:
    """Answers every request with its name, the request's first line and its body's size."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, body = await read_request(reader)
            line = head.partition(b"\r\n")[0].decode()
            text = f"{name} {line} {len(body)}".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
            await writer.drain()

    return serve


async def read_response(reader: asyncio.StreamReader, *, head_only: bool = False) -> bytes:
    """One whole answer's body (by length)."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            size = int(line.split(b":")[1])
    return head if head_only else await reader.readexactly(size)


class Tools:
    """What the tests use, reachable without imports between test modules."""

    Backend = Backend
    app = staticmethod(app)
    read_request = staticmethod(read_request)
    read_response = staticmethod(read_response)

    def __init__(self) -> None:
        self._started: list[Backend] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def backend(self, handler: Handler | str, *, backlog: int = 100,
                      sock: socket.socket | None = None) -> Backend:
        made = Backend(app(handler) if isinstance(handler, str) else handler, backlog=backlog)
        self._started.append(await made.start(sock))
        return made

    async def connect(self, port: Port) -> Streams:
        reader, writer = await asyncio.open_connection(*port.address)
        self._writers.append(writer)
        return reader, writer

    async def ask(self, streams: Streams, request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                  ) -> bytes:
        reader, writer = streams
        writer.write(request)
        return await asyncio.wait_for(read_response(reader), LIMIT)

    @staticmethod
    async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
        """Wait for ``condition``; fails after the limit."""
        deadline = time.monotonic() + LIMIT
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            assert time.monotonic() < deadline, "waited for too long"
            await asyncio.sleep(0.005)

    async def finish(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        for made in self._started:
            await made.stop()


@pytest.fixture
async def tools() -> AsyncIterator[Tools]:
    made = Tools()
    yield made
    await made.finish()


@pytest.fixture
def run_dir() -> Iterator[str]:
    """A folder with a short name: socket paths are limited to 107 bytes."""
    path = tempfile.mkdtemp(prefix="hbp")
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def port(run_dir: str) -> AsyncIterator[Port]:
    """A port that is held; nothing of it may be left afterwards."""
    handle = await Port.open("127.0.0.1", 0, run_dir, clock=SystemClock())
    pid = handle.holder_pid
    yield handle
    await handle.close()
    assert not Path(f"/proc/{pid}").exists()
    assert [it.name for it in Path(run_dir).iterdir()] == []
