"""How one changed file travels: as the smallest of a delta, zlib of the whole, the whole.

Common prefix and suffix against the old file is the delta: an edit is nearly always one place, and
41 bytes then stand for a file of any size. (The smallest form of all, *nothing*, is not a record:
the target says that it has the content, and no record is sent.)

A record is ``u8 form`` and
 - RAW: the bytes;
 - ZLIB: ``u64 size`` and the deflated bytes;
 - DELTA: ``u32 prefix | u32 suffix | old digest (32)`` and the middle;
 - DELTA_ZLIB: the same, then ``u32 size`` of the middle and the middle deflated.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from hyperbox_agent.core.inflate import inflate
from hyperbox_agent.errors import ProtocolError

_RAW, _ZLIB, _DELTA, _DELTA_ZLIB = 0, 1, 2, 3
_WHOLE = struct.Struct(">BQ")
_ENDS = struct.Struct(">BII32s")
_SIZE = struct.Struct(">I")
_RECORD = "a deflated record"
_BLOCK = 1 << 16
_SMALL = 200
"""Deflating less than this gains less than it costs."""
_SAMPLE = 1 << 15
DELTA_LIMIT = 256 << 20
"""Files over this size are sent whole: their old version is not read into memory for a delta."""
DEFLATE_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Delta:
    """New is the first ``prefix`` bytes of old, ``middle``, the last ``suffix`` bytes of old."""

    prefix: int
    suffix: int
    middle: bytes


def make(old: bytes, new: bytes) -> Delta | None:
    """The delta from old to new; None where they have nothing in common at their ends."""
    if len(old) > DELTA_LIMIT or len(new) > DELTA_LIMIT:
        return None
    most = min(len(old), len(new))
    prefix = _common_prefix(old, new, most)
    suffix = _common_suffix(old, new, most - prefix)
    if not prefix and not suffix:
        return None
    return Delta(prefix, suffix, new[prefix : len(new) - suffix])


def encode(new: bytes, old: bytes | None = None, old_digest: bytes = b"", *,
           compress: bool = True) -> bytes:
    """The smallest record for ``new``. A delta names ``old_digest``, so it needs both of the old.

    ``compress=False`` is for a target on the same machine: deflating costs more than the pipe.
    """
    best = bytes((_RAW,)) + new
    if old is not None and len(old_digest) == 32:
        delta = make(old, new)
        if delta is not None:
            best = min(best, _encode_delta(delta, old_digest, compress), key=len)
    # A delta that is already tiny can't be beaten by deflating everything.
    if compress and len(best) > _SMALL and _worth_deflating(new):
        best = min(best, _WHOLE.pack(_ZLIB, len(new)) + zlib.compress(new, 3), key=len)
    return best


def old_digest(record: bytes) -> bytes | None:
    """The digest of the old file that ``decode`` will need; None: the record stands alone.

    Raises ProtocolError.
    """
    if not record[:1] or record[0] not in (_DELTA, _DELTA_ZLIB):
        return None
    return bytes(_ends(record)[2])


def decode(record: bytes, old: bytes | None = None, *, size: int | None = None,
           limit: int = 1 << 32) -> bytes:
    """The file's bytes.

    Raises ProtocolError when the record is malformed, makes another size than ``size`` or more than
    ``limit``, or holds more or less than it declares. Never allocates more than it may make.
    """
    most = limit if size is None else min(limit, size)
    form = record[0] if record else -1
    if form == _RAW:
        data = record[1:]
    elif form == _ZLIB:
        data = _decode_whole(record, most)
    elif form in (_DELTA, _DELTA_ZLIB):
        data = _decode_delta(record, old, most)
    else:
        raise ProtocolError("a file record is empty or of an unknown form")
    if len(data) > limit or size not in (None, len(data)):
        raise ProtocolError(f"a file of {most} bytes was announced and {len(data)} came")
    return data


def _common_prefix(old: bytes, new: bytes, most: int) -> int:
    at = 0
    while at < most:
        block = new[at : min(at + _BLOCK, most)]
        if not old.startswith(block, at):
            return at + _agree(old[at : at + len(block)], block)
        at += len(block)
    return most


def _agree(left: bytes, right: bytes) -> int:
    """How many leading bytes are equal; by halving, as slices are compared at memory speed."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_suffix(old: bytes, new: bytes, most: int) -> int:
    done = 0
    while done < most:
        size = min(_BLOCK, most - done)
        left = old[len(old) - done - size : len(old) - done]
        right = new[len(new) - done - size : len(new) - done]
        if left != right:
            return done + _agree(left[::-1], right[::-1])
        done += size
    return most


def _encode_delta(delta: Delta, digest: bytes, compress: bool) -> bytes:
    middle = delta.middle
    if compress and len(middle) > _SMALL and _worth_deflating(middle):
        packed = zlib.compress(middle, 3)
        if len(packed) + _SIZE.size < len(middle):
            head = _ENDS.pack(_DELTA_ZLIB, delta.prefix, delta.suffix, digest)
            return head + _SIZE.pack(len(middle)) + packed
    return _ENDS.pack(_DELTA, delta.prefix, delta.suffix, digest) + middle


def _worth_deflating(data: bytes) -> bool:
    """False for what is packed already (pictures, archives), judged by a sample from the middle."""
    if not _SMALL < len(data) <= DEFLATE_LIMIT:
        return False
    if len(data) <= 2 * _SAMPLE:
        return True
    start = (len(data) - _SAMPLE) // 2
    return len(zlib.compress(data[start : start + _SAMPLE], 1)) < _SAMPLE * 0.9


def _ends(record: bytes) -> tuple[int, int, bytes]:
    if len(record) < _ENDS.size:
        raise ProtocolError("a delta record is cut off")
    _, prefix, suffix, digest = _ENDS.unpack_from(record)
    return prefix, suffix, digest


def _decode_whole(record: bytes, most: int) -> bytes:
    if len(record) < _WHOLE.size:
        raise ProtocolError("a deflated record is cut off")
    _, declared = _WHOLE.unpack_from(record)
    if declared > most:
        raise ProtocolError(f"a file of {declared} bytes came where {most} are allowed")
    return inflate(memoryview(record)[_WHOLE.size :], declared, _RECORD)


def _decode_delta(record: bytes, old: bytes | None, most: int) -> bytes:
    prefix, suffix, _ = _ends(record)
    if old is None:
        raise ProtocolError("a delta came for a file that is not here")
    # Both ends come out of the old file, so what they may claim is bounded by what we hold.
    if prefix + suffix > min(most, len(old)):
        raise ProtocolError("a delta claims more of the old file than there is")
    body = memoryview(record)[_ENDS.size :]
    if record[0] == _DELTA_ZLIB:
        body = memoryview(_inflate_middle(body, most - prefix - suffix))
    return b"".join((old[:prefix], body, old[len(old) - suffix :] if suffix else b""))


def _inflate_middle(body: memoryview, most: int) -> bytes:
    if len(body) < _SIZE.size:
        raise ProtocolError("a delta record is cut off")
    (declared,) = _SIZE.unpack_from(body)
    if declared > most:
        raise ProtocolError(f"a delta of {declared} bytes came where {most} are allowed")
    return inflate(body[_SIZE.size :], declared, _RECORD)
