"""One generation on disk, as the journal and the history hold it.

A record is whole or it is not there: it is written beside, given its name by a rename, and carries
the SHA-256 of itself.

    "HBG1" | u32 head | u32 changes | head (JSON) | changes (codec) | stamps (u64 each) | sha256
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hyperbox_agent.core.codec import decode_changes, decode_new, encode_changes
from hyperbox_agent.core.entries import Change, Entry
from hyperbox_agent.errors import ProtocolError, StoreError
from hyperbox_agent.store.born import birth, facts_and_birth

_MAGIC = b"HBG1"
_SIZES = struct.Struct(">4sII")
_SUM = 32


@dataclass(frozen=True, slots=True)
class Record:
    """How the tree came from generation ``before`` to generation ``number``."""

    seq: int
    """Counts the records of one home; numbers may leave gaps and come back, this never does."""
    number: int
    before: int
    changes: tuple[Change, ...]
    stamps: Mapping[str, int] = field(default_factory=dict)
    """Of the new files and links: see ``stamp``."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More of JSON's kind for who wrote it: apply's steps."""


def stamp(facts: os.stat_result, born: int) -> int:
    """A number that changes when a file is replaced or written: inode, times and size in 64 bits.

    ``born`` is what ``birth`` says: a file that was unpacked in the place of another one may have
    its number, its size and its time. Cheaper to keep for 50,000 files than the four (36 bytes
    against 180). It only ever says "look again": what counts is the digest.
    """
    return _mix(facts.st_ino, facts.st_mtime_ns, facts.st_size, born)


def stamp_of(fd: int) -> int:
    """The stamp of an open file."""
    known = facts_and_birth(fd)
    return stamp(os.fstat(fd), birth(fd)) if known is None else _mix(*known)


def _mix(inode: int, mtime_ns: int, size: int, born: int) -> int:
    mixed = (inode * 0x9E3779B97F4A7C15) ^ (mtime_ns * 0xC2B2AE3D27D4EB4F)
    mixed ^= born * 0xD6E8FEB86659FD93
    return (mixed ^ (mixed >> 31) ^ size * 0x165667B19E3779F9) & 0xFFFF_FFFF_FFFF_FFFF


def encode(record: Record) -> bytes:
    """The bytes of the file."""
    head = json.dumps({"seq": record.seq, "number": record.number, "before": record.before,
                       "facts": record.facts}, separators=(",", ":")).encode()
    changes = encode_changes(record.changes)
    known = record.stamps
    stamps = array("Q", [known.get(change.path, 0) for change in record.changes
                         if change.new is not None])
    if sys.byteorder == "big":
        stamps.byteswap()
    body = b"".join((_SIZES.pack(_MAGIC, len(head), len(changes)), head, changes,
                     stamps.tobytes()))
    return body + hashlib.sha256(body).digest()


def decode(data: bytes, file: str = "") -> Record:
    """The inverse. Raises StoreError, naming ``file``, for what is not a whole record."""
    with _damage(file):
        head, packed, numbers = _open(data)
        changes = decode_changes(packed)
        new = [change.path for change in changes if change.new is not None]
        return Record(int(head["seq"]), int(head["number"]), int(head["before"]), changes,
                      _stamps(new, numbers), head["facts"])


def read_tree(path: str) -> tuple[Record, dict[str, Entry]]:
    """A record that makes a whole tree of nothing: itself, without changes, and that tree.

    Raises StoreError, FileNotFoundError.
    """
    with open(path, "rb") as file:
        data = file.read()
    with _damage(path):
        head, packed, numbers = _open(data)
        tree = {entry.path: entry for entry in decode_new(packed)}
        record = Record(int(head["seq"]), int(head["number"]), int(head["before"]), (),
                        _stamps(tuple(tree), numbers), head["facts"])
        return record, tree


def read(path: str) -> Record:
    """The record in the file at ``path``. Raises StoreError, FileNotFoundError."""
    with open(path, "rb") as file:
        return decode(file.read(), path)


def read_numbers(path: str) -> tuple[int, int, int]:
    """``seq, number, before`` of the record at ``path``, without reading all of it."""
    with open(path, "rb") as file, _damage(path):
        head_size, _ = _check(file.read(_SIZES.size), os.fstat(file.fileno()).st_size)
        head = json.loads(file.read(head_size))
        return int(head["seq"]), int(head["number"]), int(head["before"])


@contextlib.contextmanager
def _damage(file: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, struct.error, ProtocolError) as error:
        raise StoreError(f"a generation's record is damaged: {error}", file=file) from error


def _open(data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """The head, the encoded changes and the stamps of a record whose sum is right."""
    head_size, changes_size = _check(data, len(data))
    if hashlib.sha256(memoryview(data)[:-_SUM]).digest() != data[-_SUM:]:
        raise ValueError("its sum is wrong")
    at = _SIZES.size + head_size
    head = json.loads(data[_SIZES.size : at])
    return head, data[at : at + changes_size], data[at + changes_size : -_SUM]


def _check(start: bytes, size: int) -> tuple[int, int]:
    magic, head_size, changes_size = _SIZES.unpack_from(start)
    if magic != _MAGIC:
        raise ValueError("it does not begin like one")
    if _SIZES.size + head_size + changes_size + _SUM > size:
        raise ValueError("it is cut off")
    return head_size, changes_size


def _stamps(new: Sequence[str], data: bytes) -> dict[str, int]:
    numbers = array("Q")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    if len(new) != len(numbers):
        raise ValueError("it has another number of stamps than of entries")
    return {path: number for path, number in zip(new, numbers, strict=True) if number}
