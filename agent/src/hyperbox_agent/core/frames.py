"""Frames of the link: pure encoding and incremental decoding, no I/O.

A frame is ``u32 length | u8 kind | u32 channel`` (big endian) and ``length`` bytes of payload.
There is no magic in it: who is at the other end was settled by the hello before the first frame.
What a kind means is the link's business.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hyperbox_agent.errors import ProtocolError

MAX_PAYLOAD = 1 << 20
"""No frame is longer, so a peer can make us hold one MiB and no more."""

_HEADER = struct.Struct(">IBI")
HEADER_SIZE = _HEADER.size


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame."""

    kind: int
    channel: int
    payload: bytes


def encode(kind: int, channel: int, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """The bytes of one frame. Raises ValueError for what the header can't hold."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame holds at most {MAX_PAYLOAD} bytes, not {len(payload)}")
    if not 0 <= kind <= 0xFF or not 0 <= channel <= 0xFFFF_FFFF:
        raise ValueError(f"kind {kind} or channel {channel} is out of range")
    return _HEADER.pack(len(payload), kind, channel) + bytes(payload)


class FrameDecoder:
    """Turns pieces of a byte stream into frames, however the stream was cut."""

    def __init__(self, limit: int = MAX_PAYLOAD, kinds: frozenset[int] | None = None) -> None:
        """Refuse payloads over ``limit`` bytes and, where given, kinds outside ``kinds``."""
        self._limit = limit
        self._kinds = kinds
        self._buffer = bytearray()
        self._broken = False

    @property
    def pending(self) -> int:
        """Bytes held of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """The frames that ``data`` completes.

        Raises ProtocolError as soon as a header can't be one of ours, before its payload is
        awaited; the decoder is of no use afterwards.
        """
        if self._broken:
            raise ProtocolError("the stream was already found broken")
        self._buffer += data
        frames: list[Frame] = []
        at = 0
        view = memoryview(self._buffer)
        try:
            while len(view) - at >= HEADER_SIZE:
                length, kind, channel = _HEADER.unpack_from(view, at)
                self._check(length, kind)
                end = at + HEADER_SIZE + length
                if end > len(view):
                    break
                frames.append(Frame(kind, channel, bytes(view[at + HEADER_SIZE : end])))
                at = end
        finally:
            view.release()
            del self._buffer[:at]
        return frames

    def finish(self) -> None:
        """The stream has ended. Raises ProtocolError if it ended inside a frame."""
        if self._buffer:
            raise ProtocolError(f"the stream ended {len(self._buffer)} bytes into a frame")

    def _check(self, length: int, kind: int) -> None:
        if length > self._limit:
            self._broken = True
            raise ProtocolError(f"a frame of {length} bytes was announced where {self._limit} "
                                "are allowed")
        if self._kinds is not None and kind not in self._kinds:
            self._broken = True
            raise ProtocolError(f"a frame of the unknown kind {kind} came")
