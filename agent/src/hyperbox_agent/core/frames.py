"""Frames: how messages are cut out of a byte stream. Pure, the link does the I/O.

A frame is ``length u32 | kind u8 | channel u32 | body``, big endian; the length counts the body
only. There is no mark to find a frame again: a stream that was wrong once is wrong for good.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hyperbox_agent.errors import ProtocolError

HEADER = struct.Struct(">IBI")
FRAME_LIMIT = 1 << 20
"""Bytes of a body. A peer that announces more is not ours, or is hostile."""
CHANNEL_LIMIT = (1 << 32) - 1


class Frame(NamedTuple):
    """One frame as it was received."""

    kind: int
    channel: int
    body: bytes


def encode(kind: int, channel: int, body: bytes = b"") -> bytes:
    """A frame as bytes. Raises ProtocolError when the body is over FRAME_LIMIT."""
    return encode_header(kind, channel, len(body)) + body


def encode_header(kind: int, channel: int, length: int) -> bytes:
    """What stands before a body of ``length`` bytes. Raises ProtocolError over FRAME_LIMIT."""
    if length > FRAME_LIMIT:
        raise ProtocolError(f"a frame of {length} bytes; the limit is {FRAME_LIMIT}")
    return HEADER.pack(length, kind, channel)


class FrameDecoder:
    """Takes a stream in any pieces and gives its frames. Holds at most one unfinished frame."""

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._limit = limit
        self._held: list[bytes] = []
        self._size = 0
        self._need = HEADER.size

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not whole yet; not 0 at the end means that it was cut."""
        return self._size

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Raises ProtocolError for a length over the limit.

        After a raise the decoder is of no more use: nothing behind the bad length can be trusted.
        """
        if self._held:
            self._held.append(data)
            self._size += len(data)
            # Joined only when a frame is complete: a big frame in many pieces is copied once.
            if self._size < self._need:
                return []
            data = b"".join(self._held)
            self._held = []
        frames, used = self._cut(data)
        self._size = len(data) - used
        if self._size:
            self._held = [data[used:] if used else data]
        return frames

    def _cut(self, data: bytes) -> tuple[list[Frame], int]:
        frames: list[Frame] = []
        at = 0
        size = len(data)
        while size - at >= HEADER.size:
            length, kind, channel = HEADER.unpack_from(data, at)
            if length > self._limit:
                raise ProtocolError(f"a frame of {length} bytes; the limit is {self._limit}")
            start = at + HEADER.size
            if size - start < length:
                self._need = HEADER.size + length
                return frames, at
            at = start + length
            frames.append(Frame(kind, channel, data[start:at]))
        self._need = HEADER.size
        return frames, at
