"""The table in which the agent writes who stands behind each relayed connection.

65,536 records of 24 bytes, one for each local port that the relay connects from: family (4, 6, or 0
for none), a pad byte, the port (big endian), four pad bytes, sixteen bytes of address.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from typing import Any

RECORD = 24
SIZE = 65_536 * RECORD


class Peers:
    """A read-only look at the table."""

    __slots__ = ("_table", "path")

    def __init__(self) -> None:
        self.path = ""
        self._table: mmap | None = None

    def configure(self, path: str) -> None:
        """Use another table from now on; an empty path means none."""
        self.path = path
        self._table = None

    def _map(self) -> mmap | None:
        if self._table is None and self.path:
            # A mapping, not a descriptor: the program may close descriptors that it doesn't know.
            import mmap

            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self.path = ""
                return None
            try:
                self._table = mmap.mmap(fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
            except (OSError, ValueError):
                self.path = ""
            finally:
                os.close(fd)
        return self._table

    def true_address(self, address: Any) -> Any:
        """The client behind a connection that came from ``address``; that itself if unknown."""
        table = self._map()
        if table is None or not isinstance(address, tuple):
            return address
        record = table[address[1] * RECORD:(address[1] + 1) * RECORD]
        host = _host(record, len(address) == 4)
        if host is None:
            return address
        return (host, int.from_bytes(record[2:4], "big"), *address[2:])


def _host(record: bytes, as_v6: bool) -> str | None:
    family = record[0]
    if family == 4:
        host = ".".join(map(str, record[8:12]))
        return "::ffff:" + host if as_v6 else host
    if family == 6:
        import _socket

        return _socket.inet_ntop(_socket.AF_INET6, record[8:24])
    return None


PEERS = Peers()
