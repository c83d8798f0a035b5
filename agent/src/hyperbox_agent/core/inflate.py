"""Deflated bytes from a peer: no more is made of them than they declare."""

from __future__ import annotations

import zlib

from hyperbox_agent.errors import ProtocolError


def inflate(data: bytes | memoryview, size: int, what: str,
            wrong: str = "does not hold what it declares") -> bytes:
    """The bytes, ``size`` at most are ever made. Raises ProtocolError, which says that ``what`` is
    damaged, or that it is ``wrong``: more, or not at its end."""
    inflater = zlib.decompressobj()
    try:
        # One byte more than declared shows a bomb; zlib grows its buffer as output really comes.
        out = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise ProtocolError(f"{what} is damaged: {error}") from None
    if len(out) > size or not inflater.eof or inflater.unused_data:
        raise ProtocolError(f"{what} {wrong}")
    return out
