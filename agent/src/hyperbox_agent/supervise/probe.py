"""One health request: a small HTTP/1.1 GET, and when its answer is complete."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.supervise.limits import within

Address = tuple[str, int]

_BODY_LIMIT = 1 << 20
_BODY_SECONDS = 1.0
"""An answer whose body goes on longer than this is a stream, and it has begun well."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int | None
    """None: something answered, but not HTTP."""


class NoAnswerError(Exception):
    """The connection ended before the answer was complete."""


async def get(address: Address, path: str, host: str, clock: Clock) -> Answer:
    """Ask once. Raises OSError (refused, reset), NoAnswerError; waits without limit."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await _ask(loop, sock, address, request(path, host))
        data = bytearray()
        while not has_head(data) and len(data) < _BODY_LIMIT:
            await _receive(loop, sock, data)
        try:
            if not is_complete(data):
                await within(clock, _BODY_SECONDS, _read_body(loop, sock, data))
        except TimeoutError:
            pass
        return Answer(status_of(data))


async def _ask(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Address,
               data: bytes) -> None:
    """Connect and send. Loopback is connected before ``connect`` returns, only that a socket that
    does not block says "in progress": what is sent at once saves two turns of the loop."""
    sent = 0
    try:
        sock.connect(address)
    except BlockingIOError:
        try:
            sent = sock.send(data)
        except BlockingIOError:
            await loop.sock_connect(sock, address)
    await loop.sock_sendall(sock, data[sent:])


def request(path: str, host: str) -> bytes:
    """The bytes of the request."""
    return (f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: hyperbox-health\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n").encode("utf-8", "surrogateescape")


async def _receive(loop: asyncio.AbstractEventLoop, sock: socket.socket, data: bytearray) -> None:
    chunk = await loop.sock_recv(sock, 65536)
    if not chunk:
        raise NoAnswerError
    data += chunk


async def _read_body(loop: asyncio.AbstractEventLoop, sock: socket.socket,
                     data: bytearray) -> None:
    length = body_length(data)
    while not is_complete(data) and len(data) < _BODY_LIMIT:
        try:
            await _receive(loop, sock, data)
        except NoAnswerError:
            # Without a length the end of the connection is the end of the body.
            if length is None:
                return
            raise


def has_head(data: bytes | bytearray) -> bool:
    """Whether the final answer's head is there, or it is plain that none will come."""
    if not b"HTTP/".startswith(bytes(data[:5])):
        return True
    return _head_end(data) is not None


def _head_end(data: bytes | bytearray) -> int | None:
    """Where the body begins, past any ``1xx`` answers."""
    start = 0
    while True:
        end = data.find(b"\r\n\r\n", start)
        if end < 0:
            return None
        if data[start + 9:start + 10] != b"1":
            return end + 4
        start = end + 4


def _head(data: bytes | bytearray) -> list[bytes]:
    end = _head_end(data) or 0
    start = data.rfind(b"\r\n\r\n", 0, max(end - 4, 0)) + 4 if end else 0
    return bytes(data[start if start > 3 else 0:end]).split(b"\r\n")


def status_of(data: bytes | bytearray) -> int | None:
    """The status of the final answer; None where it is not HTTP."""
    words = _head(data)[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return None
    return int(words[1])


def body_length(data: bytes | bytearray) -> int | None:
    """Bytes of the body by ``Content-Length``; None: until the connection ends."""
    if status_of(data) in (204, 304):
        return 0
    for line in _head(data)[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return None


def is_complete(data: bytes | bytearray) -> bool:
    """Whether the answer is whole as far as its own bytes tell."""
    end = _head_end(data)
    if end is None:
        return status_of(data) is None and bool(data)
    length = body_length(data)
    if length is not None:
        return len(data) - end >= length
    return bytes(data[-5:]) == b"0\r\n\r\n" and b"chunked" in bytes(data[:end]).lower()
