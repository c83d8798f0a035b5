"""The table of client addresses by the local port of the holder's connection to an instance.

A program behind the relay sees loopback as its client. The holder writes the true client address
here, under the port that its own connection is bound to, *before* it connects; the pack's shim
looks it up in ``accept()``. So no byte is added to the stream.

The file has 65,536 records of 24 bytes: family u8 (4, 6; 0 = none), pad, port u16 big-endian,
4 pad, 16 bytes of address (IPv4: the first four). Records are written address first, family last.
"""

from __future__ import annotations

import mmap
import os
import socket

PEERS_NAME = "peers"
RECORD = 24
RECORDS = 65536
SIZE = RECORD * RECORDS


class PeersTable:
    """The writer's side. Raises OSError when the file can't be made."""

    __slots__ = ("_map", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(fd, SIZE)
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)

    def put(self, local_port: int, address: tuple[str, int, int]) -> None:
        """Say who (family, host, port) stands behind the connection from ``local_port``."""
        host, port, family = address
        at = local_port * RECORD
        table = self._map
        if family == socket.AF_INET:
            table[at + 2 : at + 12] = port.to_bytes(2, "big") + bytes(4) + socket.inet_aton(host)
            table[at] = 4
        else:
            packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
            table[at + 2 : at + RECORD] = port.to_bytes(2, "big") + bytes(4) + packed
            table[at] = 6

    def drop(self, local_port: int) -> None:
        """The connection ended: another program's connection may get its port next."""
        self._map[local_port * RECORD] = 0

    def close(self) -> None:
        """Unmap the file; it stays."""
        self._map.close()


def look_up(path: str, local_port: int) -> tuple[str, int] | None:
    """The client behind the connection from ``local_port``, as a reader of the file sees it."""
    with open(path, "rb") as file:
        file.seek(local_port * RECORD)
        record = file.read(RECORD)
    port = int.from_bytes(record[2:4], "big")
    if record[:1] == b"\x04":
        return socket.inet_ntoa(record[8:12]), port
    if record[:1] == b"\x06":
        return socket.inet_ntop(socket.AF_INET6, record[8:24]), port
    return None
