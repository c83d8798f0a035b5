"""Messages between the agent and the worker: u32 big-endian length, JSON, file descriptors."""

from __future__ import annotations

import _socket
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LIMIT = 64 * 1024 * 1024
MAX_FDS = 16


class Wire:
    """One end of the worker's socket; blocking."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self.fd = fd
        self._sock = _socket.socket(fileno=fd)

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its descriptors; None at the end. Raises ValueError, OSError."""
        room = _socket.CMSG_SPACE(MAX_FDS * 4)
        head, ancillary, _flags, _address = self._sock.recvmsg(4, room, _socket.MSG_CMSG_CLOEXEC)
        fds = [fd for level, kind, data in ancillary
               if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
               for fd in struct.unpack(f"{len(data) // 4}i", data[:len(data) // 4 * 4])]
        if not head:
            return None
        head += self._exactly(4 - len(head))
        (length,) = struct.unpack("!I", head)
        if length > LIMIT:
            raise ValueError(f"a message of {length} bytes")
        return _parse(self._exactly(length)), fds

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._sock.recv(count - len(data))
            if not part:
                raise OSError("the agent closed the socket within a message")
            data += part
        return bytes(data)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message. Raises OSError."""
        self._sock.sendall(pack(message))

    def close(self) -> None:
        """Close our end."""
        self._sock.close()

    def keep_over_exec(self) -> None:
        """Let the descriptor pass to the process that replaces this one."""
        os.set_inheritable(self.fd, True)


def pack(message: Mapping[str, Any]) -> bytes:
    """One framed message."""
    import json

    data = json.dumps(message).encode()
    return struct.pack("!I", len(data)) + data


def _parse(data: bytes) -> dict[str, Any]:
    import json

    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message


def read_framed(fd: int) -> dict[str, Any] | None:
    """One framed message from a plain descriptor; None if it is closed before one byte came."""
    head = _read_exactly(fd, 4)
    if len(head) < 4:
        return None
    return _parse(_read_exactly(fd, struct.unpack("!I", head)[0]))


def _read_exactly(fd: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = os.read(fd, count - len(data))
        if not part:
            break
        data += part
    return bytes(data)
