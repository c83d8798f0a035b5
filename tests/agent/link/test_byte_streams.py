from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperbox_agent.errors import LinkLostError
from hyperbox_agent.link.memory import memory_pair
from hyperbox_agent.link.stream import (
    ByteStream,
    DirectStream,
    FdStream,
    connect_tcp,
    connect_unix,
    pipe_pair,
    socket_stream,
)
from hyperbox_agent.link.version import VERSION

Streams = Callable[[], tuple[ByteStream, ByteStream]]


async def drain(stream: ByteStream) -> bytes:
    held = b""
    while data := await stream.read():
        held += data
    return held


async def test_bytes_pass_both_ways_and_ends_are_seen(streams: Streams) -> None:
    near, far = streams()
    data = os.urandom(3_000_000)

    async def send() -> None:
        await near.write(data)
        await near.end()
        await near.end()

    _, got = await asyncio.gather(send(), drain(far))
    assert got == data
    assert await far.read() == b""
    await far.write(b"still")
    assert await near.read(2) == b"st"
    assert await near.read(100) == b"ill"
    await far.close()
    assert await near.read() == b""
    await near.close()
    await near.close()


async def test_a_closed_stream_wakes_and_refuses(streams: Streams) -> None:
    near, far = streams()
    reading = asyncio.ensure_future(near.read())
    writing = asyncio.ensure_future(near.write(bytes(10_000_000)))
    await asyncio.sleep(0.01)
    await near.close()
    for waiting in (reading, writing, near.read(), near.write(b"x")):
        with pytest.raises(LinkLostError):
            await waiting
    await near.end()
    await far.close()


async def test_writing_to_who_reads_no_more_raises(streams: Streams) -> None:
    near, far = streams()
    await far.close()
    with pytest.raises(LinkLostError):
        for _ in range(3):
            await near.write(bytes(2_000_000))
    await near.close()


async def test_a_reader_that_is_cancelled_loses_no_byte(streams: Streams) -> None:
    near, far = streams()
    for _ in range(5):
        reading = asyncio.ensure_future(far.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await near.write(b"abc")
    await asyncio.sleep(0.01)
    assert await far.read() == b"abc"
    await near.close()
    await far.close()


async def test_pushed_bytes_arrive_in_order_and_end_once() -> None:
    for near, far in (pipe_pair(), tuple(map(socket_stream, socket.socketpair()))):
        assert isinstance(far, DirectStream)
        got: list[bytes] = []
        ended: asyncio.Future[LinkLostError | None] = asyncio.get_running_loop().create_future()
        far.push(got.append, ended.set_result)
        data = os.urandom(500_000)
        await near.write(data)
        await near.close()
        assert await asyncio.wait_for(ended, 30) is None
        assert b"".join(got) == data
        await far.close()


async def test_a_reset_socket_reads_as_an_end() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    stream = await connect_tcp(*listener.getsockname())
    peer, _ = listener.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    assert await asyncio.wait_for(stream.read(), 30) == b""
    await stream.close()
    listener.close()


async def test_connecting_to_nothing_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connect_unix(str(tmp_path / "none"))
    free = socket.create_server(("127.0.0.1", 0))
    address = free.getsockname()
    free.close()
    with pytest.raises(ConnectionRefusedError):
        await connect_tcp(*address)


async def test_a_plain_file_is_refused_in_words(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x")
    os.lseek(fd, 0, os.SEEK_SET)
    stream = FdStream(fd, os.dup(fd))
    with pytest.raises(LinkLostError, match="a plain file"):
        stream.push(lambda data: None, lambda error: None)
    await stream.close()


@pytest.mark.parametrize("make", [
    pipe_pair, lambda: tuple(map(socket_stream, socket.socketpair()))], ids=["pipe", "socket"])
async def test_descriptors_are_closed(make: Callable[[], tuple[FdStream, FdStream]]) -> None:
    near, far = make()
    fds = {near._read_fd, near._write_fd, far._read_fd, far._write_fd}
    await near.end()
    await near.close()
    await far.close()
    for fd in fds:
        with pytest.raises(OSError) as caught:
            os.fstat(fd)
        assert caught.value.errno == errno.EBADF


async def test_the_hooks_of_a_memory_stream_do_what_they_say() -> None:
    near, far = memory_pair()
    far.pieces(3)
    await near.write(b"abcdefgh")
    assert [await far.read() for _ in range(3)] == [b"abc", b"def", b"gh"]
    far.stall()
    reading = asyncio.ensure_future(far.read())
    await near.write(b"x")
    await asyncio.sleep(0.01)
    assert not reading.done()
    far.go_on()
    assert await reading == b"x"
    near.cut_after(4)
    with pytest.raises(LinkLostError, match="cut"):
        await near.write(b"123456")
    assert await far.read() + await far.read() == b"1234"
    assert await far.read() == b""
    near, far = memory_pair()
    reading = asyncio.ensure_future(far.read())
    await asyncio.sleep(0)
    far.fail_now("gone")
    for waiting in (reading, far.write(b"x")):
        with pytest.raises(LinkLostError, match="gone"):
            await waiting
    assert await near.read() == b""


def test_the_version_on_the_wire_is_the_package_version() -> None:
    project = Path(__file__).parents[3] / "agent" / "pyproject.toml"
    written = re.search(r'^version = "(.+)"$', project.read_text(), re.MULTILINE)
    assert written is not None
    assert written[1] == VERSION
