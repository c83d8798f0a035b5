"""Forwarded ports: a listener of ours whose connections are led into streams of a target."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from hyperbox_agent.errors import LinkLostError
from hyperbox_agent.link.stream import ByteStream, socket_stream
from hyperbox_devcontainer.errors import TargetError

Open = Callable[[], Awaitable[ByteStream]]


class StreamForward:
    """Listens on a free loopback port. Each connection gets a stream of its own from ``open``."""

    def __init__(self, listener: socket.socket, open_stream: Open) -> None:
        self._listener = listener
        self._open = open_stream
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.ensure_future(self._accept())
        host, port = listener.getsockname()
        self.address: tuple[str, int] = (host, port)

    @classmethod
    def start(cls, open_stream: Open) -> StreamForward:
        """Begin to listen. Raises OSError."""
        listener = socket.socket()
        try:
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return cls(listener, open_stream)

    async def close(self) -> None:
        """See Forward."""
        tasks = {self._accepting, *self._tasks}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            client.setblocking(False)
            task = asyncio.ensure_future(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        near = socket_stream(client)
        try:
            far = await self._open()
        except (TargetError, LinkLostError):
            await near.close()  # refused there, so closed here: a client sees what it would there
            return
        except BaseException:
            await near.close()
            raise
        await splice(near, far)


async def splice(one: ByteStream, other: ByteStream) -> None:
    """Copy both ways until both directions have ended; closes both. An end passes as an end."""
    ways = {asyncio.ensure_future(_copy(one, other)), asyncio.ensure_future(_copy(other, one))}
    try:
        # A broken stream has no use for its other direction; one that ended may have.
        await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        for way in ways:
            _ = way.cancelled() or way.exception()
        await one.close()
        await other.close()


async def _copy(source: ByteStream, sink: ByteStream) -> None:
    while data := await source.read():
        await sink.write(data)
    await sink.end()
