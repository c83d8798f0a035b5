"""Entries and changes as compact bytes, for the link and for the disk.

Made for 50,000 entries at once: fixed-size parts in one array, names in one string, so that reading
a manifest costs about 2 µs an entry. Names keep their surrogate escapes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.inflate import inflate
from hyperbox_agent.errors import ProtocolError

_COUNT = struct.Struct(">IIII")
_FIXED = struct.Struct(">BHQ32s")
_KINDS = (Kind.FILE, Kind.DIR, Kind.LINK)
_NUMBER = {kind: number for number, kind in enumerate(_KINDS)}
_NO_DIGEST = bytes(32)
MAX_ENTRIES = 5_000_000
MAX_NAMES = 1 << 28
_CHANGES = struct.Struct(">II")


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """The entries, in their order."""
    fixed = b"".join([
        _FIXED.pack(_NUMBER[entry.kind], entry.mode & 0xFFFF, entry.size,
                    entry.digest or _NO_DIGEST) for entry in entries])
    paths = _names([entry.path for entry in entries])
    targets = _names([entry.target for entry in entries if entry.kind is Kind.LINK])
    packed = zlib.compress(paths, 1)
    head = _COUNT.pack(len(entries), len(packed), len(paths), len(targets))
    return b"".join((head, fixed, packed, targets))


def decode_entries(data: bytes) -> list[Entry]:
    """The inverse. Raises ProtocolError for anything that ``encode_entries`` can't have made."""
    if len(data) < _COUNT.size:
        raise ProtocolError("a list of entries is cut off")
    count, packed_size, paths_size, targets_size = _COUNT.unpack_from(data)
    if count > MAX_ENTRIES or paths_size > MAX_NAMES:
        raise ProtocolError(f"a list of {count} entries was announced, the limit is {MAX_ENTRIES}")
    names_at = _COUNT.size + count * _FIXED.size
    targets_at = names_at + packed_size
    if targets_at + targets_size != len(data):
        raise ProtocolError("a list of entries is cut off")
    paths = _split(_inflate(data[names_at:targets_at], paths_size), count)
    fixed = memoryview(data)[_COUNT.size : names_at]
    return _build(fixed, paths, data[targets_at:])


def encode_changes(changes: Sequence[Change]) -> bytes:
    """The changes: all old entries, all new ones, each list complete by itself."""
    old = encode_entries([change.old for change in changes if change.old is not None])
    new = encode_entries([change.new for change in changes if change.new is not None])
    return _CHANGES.pack(len(old), len(new)) + old + new


def decode_changes(data: bytes) -> tuple[Change, ...]:
    """The inverse, sorted by path. Raises ProtocolError."""
    old_part, new_part = _parts(data)
    old = _by_path(decode_entries(old_part))
    new = _by_path(decode_entries(new_part))
    return tuple(Change(path, old.get(path), new.get(path)) for path in sorted({*old, *new}))


def decode_new(data: bytes) -> list[Entry]:
    """Only the new entries of encoded changes, in their order. Raises ProtocolError."""
    return decode_entries(_parts(data)[1])


def _parts(data: bytes) -> tuple[bytes, bytes]:
    if len(data) < _CHANGES.size:
        raise ProtocolError("a list of changes is cut off")
    old_size, new_size = _CHANGES.unpack_from(data)
    if _CHANGES.size + old_size + new_size != len(data):
        raise ProtocolError("a list of changes is cut off")
    body = data[_CHANGES.size :]
    return body[:old_size], body[old_size:]


def _by_path(entries: Iterable[Entry]) -> dict[str, Entry]:
    out: dict[str, Entry] = {}
    for entry in entries:
        if entry.path in out:
            raise ProtocolError("a path is listed twice", file=entry.path)
        out[entry.path] = entry
    return out


def _names(names: Sequence[str]) -> bytes:
    """NUL can't be in a file name, so it separates them; a trailing one tells '' from nothing."""
    return "".join([name + "\0" for name in names]).encode("utf-8", "surrogateescape")


def _split(data: bytes, count: int) -> list[str]:
    try:
        names = data.decode("utf-8", "surrogateescape").split("\0")
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a list of names is damaged: {error}") from None
    if names.pop() or len(names) != count:
        raise ProtocolError("a list of entries has another number of names than of entries")
    return names


def _inflate(data: bytes, size: int) -> bytes:
    what = "a list of names"
    out = inflate(data, size, what)
    if len(out) != size:
        raise ProtocolError(f"{what} does not hold what it declares")
    return out


def _build(fixed: memoryview, paths: list[str], targets: bytes) -> list[Entry]:
    kinds = bytes(fixed[:: _FIXED.size])
    if kinds and max(kinds) >= len(_KINDS):
        raise ProtocolError(f"an entry of the unknown kind {max(kinds)} came")
    texts = iter(_split(targets, kinds.count(_NUMBER[Kind.LINK])))
    link, no_digest, by_number = Kind.LINK, _NO_DIGEST, _KINDS
    out: list[Entry] = []
    add = out.append
    for path, (number, mode, size, digest) in zip(paths, _FIXED.iter_unpack(fixed), strict=True):
        kind = by_number[number]
        add(Entry(path, kind, mode, size, b"" if digest == no_digest else digest,
                  next(texts) if kind is link else ""))
    return out
