"""Byte streams: the one seam between the link and whatever carries it.

``ByteStream`` is what a target opens: a pipe, a socket, an ``exec`` of a container engine, an SSH
channel. ``FdStream`` is the one for file descriptors of this machine.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from hyperbox_agent.errors import LinkLostError

READ_SIZE = 256 * 1024
PIPE_SIZE = 1 << 20
"""What pipes are enlarged to where the kernel lets us: 64 KiB cost a wake-up of both ends each."""

QUEUE_LOOK = 0.02
"""Seconds between two tries to connect to a unix socket whose queue is full."""


class ByteStream(Protocol):
    """Bytes in both directions, in order. One reader and one writer at a time.

    Every method raises LinkLostError when the stream broke or was closed.
    """

    async def read(self, n: int = READ_SIZE) -> bytes:
        """At least one and at most ``n`` bytes; ``b""`` at the end, as often as it is asked."""
        ...

    async def write(self, data: bytes) -> None:
        """Return when all of ``data`` was taken over. Waits while the other side doesn't read."""
        ...

    async def end(self) -> None:
        """Write no more: the other side reads an end. Reading goes on. May be called again."""
        ...

    async def close(self) -> None:
        """End both directions. Never fails, may be called again, wakes whoever waits."""
        ...


@runtime_checkable
class DirectStream(Protocol):
    """A ByteStream that saves its user turns of the event loop: each costs some 10 µs, and a call
    there and back would need six of them."""

    def write_now(self, data: bytes) -> int:
        """How many bytes were taken, 0 when it would have to wait."""
        ...

    def push(self, receive: Callable[[bytes], None],
             ended: Callable[[LinkLostError | None], None]) -> None:
        """Hand over bytes as they come; ``read`` is over. ``ended`` is called once, with None at
        the stream's end or with what broke it, and not when it is closed here."""
        ...


class FdStream:
    """Two file descriptors (a pipe pair) or one (a socket) as a stream. Owns them.

    Must be made on a running loop. Pipes, sockets and terminals; a plain file can't be waited for.
    Without a ``write_fd`` it can only be read.
    """

    def __init__(self, read_fd: int, write_fd: int | None, *,
                 end_writing: Callable[[], None] | None = None,
                 release: Callable[[], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_fd = read_fd
        self._write_fd = -1 if write_fd is None else write_fd
        self._end_writing = end_writing
        self._release = release
        self._reader: asyncio.Future[bytes] | None = None
        self._reader_size = 0
        self._watching = False
        self._receive: Callable[[bytes], None] | None = None
        self._on_end: Callable[[LinkLostError | None], None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._ended = write_fd is None
        self._closed = False
        for fd in {read_fd, self._write_fd} - {-1}:
            os.set_blocking(fd, False)
            _enlarge(fd)

    async def read(self, n: int = READ_SIZE) -> bytes:
        """See ByteStream."""
        self._check_open()
        if self._reader is not None:
            raise RuntimeError("two readers on one stream")
        if not self._watching:
            # Nobody was waiting when the last bytes came, so the loop does not look: we do.
            data = self._read_now(n)
            if data is not None:
                return data
            self._watch()
        self._reader_size = n
        self._reader = self._loop.create_future()
        try:
            return await self._reader
        finally:
            self._reader = None

    async def write(self, data: bytes) -> None:
        """See ByteStream."""
        self._check_open()
        if self._writer is not None:
            raise RuntimeError("two writers on one stream")
        view = memoryview(data)
        while True:
            view = view[self.write_now(view):]
            if not view:
                return
            await self._writable()

    def write_now(self, data: bytes | memoryview) -> int:
        """See DirectStream."""
        if self._ended or self._closed:
            raise LinkLostError("the stream was closed for writing")
        if self._writer is not None:
            return 0
        try:
            return os.write(self._write_fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkLostError(f"the other side reads no more: {error.strerror}") from error

    async def end(self) -> None:
        """See ByteStream."""
        if self._ended or self._closed:
            return
        self._ended = True
        self._stop_writer()
        if self._end_writing is not None:
            self._end_writing()
        else:
            os.close(self._write_fd)

    async def close(self) -> None:
        """See ByteStream."""
        self.close_now()

    def close_now(self) -> None:
        """``close`` for callers that can't wait; nothing in it waits."""
        if self._closed:
            return
        self._closed = True
        self._unwatch()
        self._stop_writer()
        if self._reader is not None and not self._reader.done():
            self._reader.set_exception(LinkLostError("the stream was closed"))
        if self._release is not None:
            self._release()
            return
        os.close(self._read_fd)
        if not self._ended:
            os.close(self._write_fd)

    def _check_open(self) -> None:
        if self._closed:
            raise LinkLostError("the stream was closed")

    def _read_now(self, n: int) -> bytes | None:
        try:
            return os.read(self._read_fd, n)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.ECONNRESET, errno.EIO):
                # EIO is how a terminal's master says that nobody has the other side any more.
                return b""
            raise LinkLostError(f"the stream broke: {error.strerror}") from error

    def push(self, receive: Callable[[bytes], None],
             ended: Callable[[LinkLostError | None], None]) -> None:
        """See DirectStream."""
        self._check_open()
        self._receive, self._on_end = receive, ended
        self._watch()

    def _readable(self) -> None:
        if self._receive is not None:
            self._push_on(self._receive)
            return
        reader = self._reader
        if reader is None or reader.done():
            # Level-triggered: left registered it would spin until somebody reads.
            self._unwatch()
            return
        try:
            data = self._read_now(self._reader_size)
        except LinkLostError as error:
            reader.set_exception(error)
            return
        if data is None:
            return
        if not data:
            self._unwatch()
        reader.set_result(data)

    def _push_on(self, receive: Callable[[bytes], None]) -> None:
        broken = None
        try:
            data = self._read_now(READ_SIZE)
        except LinkLostError as error:
            data, broken = b"", error
        if data:
            receive(data)
        elif data is not None:
            self._unwatch()
            if self._on_end is not None:
                self._on_end(broken)

    def _watch(self) -> None:
        if self._watching:
            return
        try:
            self._loop.add_reader(self._read_fd, self._readable)
        except PermissionError as error:
            raise LinkLostError("a plain file can't carry a link", hint="give a pipe") from error
        self._watching = True

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._read_fd)

    async def _writable(self) -> None:
        self._writer = self._loop.create_future()
        self._loop.add_writer(self._write_fd, self._wake_writer)
        try:
            await self._writer
        finally:
            self._writer = None
            if not self._ended and not self._closed:
                self._loop.remove_writer(self._write_fd)

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def _stop_writer(self) -> None:
        if self._writer is not None:
            self._loop.remove_writer(self._write_fd)
            if not self._writer.done():
                self._writer.set_exception(LinkLostError("the stream was closed"))


def socket_stream(sock: socket.socket) -> FdStream:
    """A connected socket as a stream. Owns it."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # Small frames must not wait for the acknowledgement of the frame before.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def end_writing() -> None:
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side is gone already, which is what the caller wants to reach

    return FdStream(sock.fileno(), sock.fileno(), end_writing=end_writing, release=sock.close)


async def connect_unix(path: str) -> FdStream:
    """A stream to a listening unix socket. Raises OSError. Waits while its queue is full."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                # EAGAIN of a unix socket means a full queue, not "in progress" as of TCP: nothing
                # will ever say that it has room, and asyncio takes it for connected.
                await asyncio.sleep(QUEUE_LOOK)
            else:
                return socket_stream(sock)
    except BaseException:
        sock.close()
        raise


async def connect_tcp(host: str, port: int) -> FdStream:
    """A stream to a listening TCP socket by numeric address. Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return socket_stream(sock)


def stdio_stream() -> FdStream:
    """This process's standard input and output as a stream, taken away from everybody else.

    Descriptor 1 leads to standard error afterwards and 0 to nothing: a stray ``print`` or a child
    that inherits them can't put a byte between two frames.
    """
    read_fd, write_fd = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return FdStream(read_fd, write_fd)


def pipe_pair() -> tuple[FdStream, FdStream]:
    """Two streams that are each other's other side, over two pipes of this process."""
    here_read, there_write = os.pipe()
    there_read, here_write = os.pipe()
    return FdStream(here_read, here_write), FdStream(there_read, there_write)


def _enlarge(fd: int) -> None:
    try:
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (ImportError, AttributeError, OSError):
        pass  # not a pipe, not Linux, or the user's share of pipe memory is used up: slower only
