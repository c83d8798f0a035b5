"""The process target: this very machine."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hyperbox_agent.errors import LinkLostError
from hyperbox_agent.link.stream import READ_SIZE, FdStream, connect_unix
from hyperbox_devcontainer.errors import TargetError
from hyperbox_devcontainer.target.base import Ran
from hyperbox_devcontainer.target.children import Child, spawn
from hyperbox_devcontainer.target.edge import (
    OUTPUT_LIMIT,
    check_absolute,
    check_argv,
    limited,
    mapped,
    not_found,
)

END_GRACE = 2.0
"""Seconds that a program gets to end itself when its stream was closed, and again at SIGTERM."""
LEFT_GRACE = 0.5
"""How long output is still read when a command has ended but something it started holds it."""
TAIL = 4096


class ProcessStream:
    """A started program's input and output. ``said`` is the end of its standard error."""

    def __init__(self, child: Child, stream: FdStream, err: FdStream, *, survives: bool) -> None:
        self.child = child
        self.said = b""
        self._stream = stream
        self._err = err
        self._survives = survives
        self._closing: asyncio.Task[None] | None = None
        self._draining = asyncio.ensure_future(self._drain())
        self.write_now = stream.write_now
        self.push = stream.push

    async def read(self, n: int = READ_SIZE) -> bytes:
        """See ByteStream."""
        return await self._stream.read(n)

    async def write(self, data: bytes) -> None:
        """See ByteStream."""
        await self._stream.write(data)

    async def end(self) -> None:
        """See ByteStream."""
        await self._stream.end()

    async def close(self) -> None:
        """See ByteStream. Returns when the program has ended, unless it survives."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._stream.close()
        if not self._survives and not await self.child.ended_within(END_GRACE):
            await self.child.end(END_GRACE)
        await self._err.close()
        await asyncio.wait({self._draining})

    async def _drain(self) -> None:
        # Nobody may be there to read it, but a full pipe would stop the program.
        try:
            while data := await self._err.read():
                self.said = (self.said + data)[-TAIL:]
        except LinkLostError:
            return  # closed here


class DirectForward:
    """A port of this machine is reachable as it is."""

    def __init__(self, port: int) -> None:
        self.address = ("127.0.0.1", port)

    async def close(self) -> None:
        """See Forward."""


class ProcessTarget:
    """This machine as a target. ``environ`` replaces our own environment for what runs there."""

    kind = "process"

    def __init__(self, name: str, environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.python: str | None = sys.executable
        self._environ = dict(os.environ if environ is None else environ)
        self._streams: set[ProcessStream] = set()
        self._closed = False

    async def open(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None,
                   survives: bool = False, timeout: float) -> ProcessStream:
        """See Target."""
        child, stream, err = self._spawn(check_argv(self.name, argv), env)
        opened = ProcessStream(child, stream, err, survives=survives)
        self._streams = {one for one in self._streams if not one.child.ended} | {opened}
        return opened

    async def open_socket(self, path: str, *, timeout: float) -> FdStream:
        """A stream to a unix socket of this machine; saves the process that would lead there."""
        return await limited(self.name, f"connecting to {path}", timeout, connect_unix(path))

    async def run(self, argv: Sequence[str], *, input: bytes = b"",  # noqa: A002
                  env: Mapping[str, str] | None = None, timeout: float) -> Ran:
        """See Target."""
        words = check_argv(self.name, argv)
        child, stream, err = self._spawn(words, env)
        try:
            return await limited(self.name, words[0], timeout,
                                 self._communicate(child, stream, err, input))
        finally:
            await asyncio.shield(_finish(child, stream, err))

    async def put(self, path: str, data: bytes, *, mode: int = 0o644, timeout: float) -> None:
        """See Target."""
        check_absolute(self.name, path)
        await limited(self.name, f"writing {path}", timeout,
                      asyncio.to_thread(_write_whole, path, data, mode))

    async def forward(self, port: int, *, timeout: float) -> DirectForward:
        """See Target."""
        if not 0 < port < 65536:
            raise TargetError(f"{self.name}: {port} is no port", target=self.name)
        return DirectForward(port)

    async def close(self) -> None:
        """See Target."""
        self._closed = True
        streams, self._streams = self._streams, set()
        for stream in streams:
            await stream.close()

    def _spawn(self, argv: tuple[str, ...],
               env: Mapping[str, str] | None) -> tuple[Child, FdStream, FdStream]:
        if self._closed:
            raise TargetError(f"{self.name} was closed", target=self.name)
        with mapped(self.name, f"starting {argv[0]}"), _pipes() as (ours, theirs):
            try:
                child = spawn(argv, {**self._environ, **(env or {})}, theirs)
            except FileNotFoundError as error:
                raise not_found(self.name, argv[0]) from error
            ours_in, ours_out, ours_err = (os.dup(fd) for fd in ours)
            return child, FdStream(ours_out, ours_in), FdStream(ours_err, None)

    async def _communicate(self, child: Child, stream: FdStream, err: FdStream,
                           data: bytes) -> Ran:
        feeding = asyncio.ensure_future(_feed(stream, data))
        out, said = _Collector(self.name, stream), _Collector(self.name, err)
        reading = {asyncio.ensure_future(one.run()) for one in (out, said)}
        try:
            status = await self._ended(child, reading)
        finally:
            for task in {feeding, *reading}:
                task.cancel()
            await asyncio.wait({feeding, *reading})
        return Ran(status, out.whole(), said.whole())

    async def _ended(self, child: Child, reading: set[asyncio.Task[None]]) -> int:
        waiting = asyncio.ensure_future(child.wait())
        pending: set[asyncio.Task[object]] = {waiting, *reading}
        try:
            while waiting in pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # too much output ends it at once
            if pending:
                done, _ = await asyncio.wait(pending, timeout=LEFT_GRACE)
                for task in done:
                    task.result()
            return waiting.result()
        finally:
            waiting.cancel()


class _Collector:
    """Reads a stream to its end, within the limit."""

    def __init__(self, target: str, stream: FdStream) -> None:
        self._target = target
        self._stream = stream
        self._held: list[bytes] = []

    async def run(self) -> None:
        size = 0
        while data := await self._stream.read():
            self._held.append(data)
            size += len(data)
            if size > OUTPUT_LIMIT:
                raise TargetError(f"{self._target}: more than {OUTPUT_LIMIT >> 20} MiB of output",
                                  target=self._target)

    def whole(self) -> bytes:
        return b"".join(self._held)


async def _feed(stream: FdStream, data: bytes) -> None:
    try:
        await stream.write(data)
        await stream.end()
    except LinkLostError:
        return  # a command need not read all of its input


async def _finish(child: Child, stream: FdStream, err: FdStream) -> None:
    if not child.ended:
        await child.end(END_GRACE)
    await stream.close()
    await err.close()


@contextmanager
def _pipes() -> Iterator[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """Our and the program's ends of its three streams; closed on the way out."""
    fds: list[int] = []
    try:
        for _ in range(3):
            fds.extend(os.pipe())
        in_read, in_write, out_read, out_write, err_read, err_write = fds
        yield (in_write, out_read, err_read), (in_read, out_write, err_write)
    finally:
        for fd in fds:
            os.close(fd)


def _write_whole(path: str, data: bytes, mode: int) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    fd, temporary = tempfile.mkstemp(dir=folder, prefix=".hyperbox-")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchmod(fd, mode)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
