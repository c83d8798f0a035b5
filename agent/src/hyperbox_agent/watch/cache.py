"""What the last scan learned, kept so that the next one reads only what changed.

One file, columns rather than records: all paths in one run of text, all signatures and digests in
one run of fixed size. 50,000 of them are 5 MB and read in some 20 ms.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable

from hyperbox_agent.home import make_private
from hyperbox_agent.watch.scan import SIGNATURE_SIZE

MAGIC = b"HBSCAN2\n"
_HEAD = struct.Struct("<QQ")
_DIGEST = 32
_RECORD = SIGNATURE_SIZE + _DIGEST


class ScanCache:
    """Digests by path and signature. Keeps the file's bytes as they are: objects cost more."""

    __slots__ = ("_at", "_records")

    def __init__(self, paths: list[str], records: bytes) -> None:
        self._at = dict(zip(paths, range(0, len(records), _RECORD), strict=True))
        self._records = records

    def digest(self, path: str, signature: bytes) -> bytes | None:
        """The digest of a file's content, if it still has this signature."""
        at = self._at.get(path)
        if at is None:
            return None
        middle = at + SIGNATURE_SIZE
        records = self._records
        return records[middle:at + _RECORD] if records[at:middle] == signature else None


EMPTY = ScanCache([], b"")


def write_cache(file: str, entries: Iterable[tuple[str, bytes, bytes]]) -> None:
    """Keep (path, signature, digest) of each; readable by the owner only. Raises OSError.

    The file is replaced at once or not at all.
    """
    paths: list[str] = []
    records = bytearray()
    for path, signature, digest in entries:
        paths.append(path)
        records += signature + digest
    names = "\0".join(paths).encode("utf-8", "surrogateescape")
    body = b"".join((_HEAD.pack(len(paths), len(names)), names, records))
    folder = os.path.dirname(file)
    make_private(folder)
    fd, temporary = tempfile.mkstemp(dir=folder, prefix=".scan-")
    try:
        with open(fd, "wb") as handle:
            handle.write(MAGIC + hashlib.sha256(body).digest() + body)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def read_cache(file: str) -> tuple[ScanCache, str | None]:
    """The cache, empty where there is none, and why it is not used where it can't be."""
    try:
        with open(file, "rb") as handle:
            found = _parse(handle.read())
    except FileNotFoundError:
        return EMPTY, None
    except OSError as error:
        return EMPTY, f"the scan cache {file} is not used: {error.strerror}"
    if found is None:
        return EMPTY, f"the scan cache {file} is not used: it is damaged"
    return found, None


def _parse(data: bytes) -> ScanCache | None:
    start = len(MAGIC) + _DIGEST
    body = memoryview(data)[start:]
    if (not data.startswith(MAGIC) or len(body) < _HEAD.size
            or hashlib.sha256(body).digest() != data[len(MAGIC):start]):
        return None
    count, length = _HEAD.unpack_from(body)
    end = _HEAD.size + length
    if len(body) != end + count * _RECORD:
        return None
    names = str(body[_HEAD.size:end], "utf-8", "surrogateescape")
    return ScanCache(names.split("\0") if count else [], data[start + end:])
