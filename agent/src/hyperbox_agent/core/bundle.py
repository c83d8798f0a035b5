"""The payload of blobs: repeated ``digest (32 bytes) | u32 length | record``.

A record is what ``core.delta.encode`` makes. The stream's own end mark says that it is whole: a
bundle that is cut, even between two records, never reads as a shorter bundle (see ``Payload``).
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable, Iterator

from hyperbox_agent.errors import ProtocolError

HEAD = struct.Struct(">32sI")
RECORD_LIMIT = 1 << 30
"""Bytes of one record: files beyond it are refused before anything is sent."""
_GATHER = 128 * 1024


def pack_blobs(records: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The bundle in pieces: small records are gathered, big ones pass without a copy."""
    gathered: list[bytes] = []
    size = 0
    for digest, record in records:
        if len(digest) != 32 or len(record) > RECORD_LIMIT:
            raise ProtocolError(f"a blob of {len(record)} bytes can't be shipped",
                                hint=f"the limit is {RECORD_LIMIT} bytes; ignore the file")
        gathered.append(HEAD.pack(digest, len(record)))
        if len(record) < _GATHER:
            gathered.append(record)
            size += HEAD.size + len(record)
            if size < _GATHER:
                continue
        yield b"".join(gathered)
        gathered, size = [], 0
        if len(record) >= _GATHER:
            yield record
    if gathered:
        yield b"".join(gathered)


class BundleReader:
    """Takes a bundle in any pieces and gives its records. Raises ProtocolError on what is none."""

    def __init__(self, limit: int = RECORD_LIMIT) -> None:
        self._limit = limit
        self._held: list[bytes] = []
        self._size = 0
        self._need = HEAD.size

    def feed(self, piece: bytes) -> list[tuple[bytes, bytes]]:
        """The records that are whole now."""
        self._held.append(piece)
        self._size += len(piece)
        # Joining only when enough is there keeps a big record from being copied piece by piece.
        if self._size < self._need:
            return []
        data = b"".join(self._held)
        records, used = self._split(data)
        rest = data[used:] if used else data
        self._held = [rest] if rest else []
        self._size = len(rest)
        return records

    def end(self) -> None:
        """Nothing more comes. Raises ProtocolError when a record is cut."""
        if self._size:
            raise ProtocolError(f"blobs: the last record is cut after {self._size} bytes")

    def _split(self, data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
        records: list[tuple[bytes, bytes]] = []
        at = 0
        while True:
            if len(data) - at < HEAD.size:
                self._need = HEAD.size
                return records, at
            digest, length = HEAD.unpack_from(data, at)
            if length > self._limit:
                raise ProtocolError(f"blobs: a record of {length} bytes; the limit is "
                                    f"{self._limit}")
            end = at + HEAD.size + length
            if end > len(data):
                self._need = HEAD.size + length
                return records, at
            records.append((digest, data[at + HEAD.size:end]))
            at = end


async def read_blobs(payload: AsyncIterator[bytes],
                     limit: int = RECORD_LIMIT) -> AsyncIterator[tuple[bytes, bytes]]:
    """The (digest, record) pairs of a payload as they arrive. Raises ProtocolError."""
    reader = BundleReader(limit)
    async for piece in payload:
        for record in reader.feed(piece):
            yield record
    reader.end()
