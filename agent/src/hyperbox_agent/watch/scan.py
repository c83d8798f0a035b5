"""What one entry on disk is: its signature, its digest, whether a link may be carried."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat
import struct
import time

from hyperbox_agent.core.entries import Entry, Kind

RACY = b""
"""In place of a signature: the content is known, but the next look must read it again."""

CHUNK = 4 << 20
_SECOND = 1_000_000_000
FINE_GRAIN = 20_000_000
"""Nanoseconds. Kernels before 6.13 stamp files with a clock that ticks every 1–10 ms."""
COARSE_GRAIN = 2 * _SECOND
"""For file systems that keep whole (FAT: even) seconds."""

MODES = tuple(range(0o1000))
"""One int object a mode: 50,000 entries hold few modes, and ints above 256 are made anew."""

_SIGNATURE = struct.Struct("<QqqQ")
_pack = _SIGNATURE.pack
SIGNATURE_SIZE = _SIGNATURE.size
# O_NONBLOCK: where a fifo took the file's place since it was listed, open must not wait for it.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def signature(found: os.stat_result) -> bytes:
    """Size, times and inode: while these stay the same, the content is known without reading."""
    return _pack(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def inode(mark: bytes) -> int:
    """The inode number in a signature; 0 for marks that are none."""
    return int(_SIGNATURE.unpack(mark)[3]) if len(mark) == _SIGNATURE.size else 0


def lasting(found: os.stat_result, read_at: int) -> bool:
    """Whether any write after ``read_at`` (wall clock, ns) must show in the signature.

    git's racy-clean rule, with the change time, which nobody can set back.
    """
    grain = FINE_GRAIN if found.st_ctime_ns % _SECOND else COARSE_GRAIN
    return max(found.st_mtime_ns, found.st_ctime_ns) + grain < read_at


class ChangedError(Exception):
    """The file changed while it was read."""


def digest_file(path: str, before: os.stat_result, mark: bytes
                ) -> tuple[bytes, bytes, bytes | None]:
    """SHA-256 of a file's bytes, its signature (``RACY`` where it can't be relied on), and the
    bytes; None where they are CHUNK or more.

    ``mark`` is the signature of ``before``. Raises ChangedError when it is not from begin to end
    the file that ``before`` saw, OSError when it can't be read.
    """
    read_at = time.time_ns()
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENXIO):
            raise ChangedError from error
        raise
    data = None
    try:
        if before.st_size < CHUNK:
            # One byte more than expected: a short read is the end, and no second one is needed.
            data = os.read(fd, before.st_size + 1)
            if len(data) != before.st_size:
                raise ChangedError
            digest = hashlib.sha256(data).digest()
        else:
            digest = _digest_large(fd, mark)
        if signature(os.fstat(fd)) != mark:
            raise ChangedError
    finally:
        os.close(fd)
    return digest, mark if lasting(before, read_at) else RACY, data


def _digest_large(fd: int, mark: bytes) -> bytes:
    state = hashlib.sha256()
    while data := os.read(fd, CHUNK):
        state.update(data)
        # A large file that is being written is given up early: it will be read again anyway.
        if signature(os.fstat(fd)) != mark:
            raise ChangedError
    return state.digest()


def file_entry(path: str, found: os.stat_result, digest: bytes) -> Entry:
    """A file's entry."""
    return Entry(path, Kind.FILE, MODES[found.st_mode & 0o777], found.st_size, digest)


def dir_entry(path: str, mode: int) -> Entry:
    """A folder's entry."""
    return Entry(path, Kind.DIR, MODES[mode & 0o777])


def mode_of(path: str) -> int:
    """Its mode; what is usual for a folder where it is gone."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0o755


def link_entry(path: str, target: str) -> Entry:
    """A symbolic link's entry."""
    text = os.fsencode(target)
    return Entry(path, Kind.LINK, 0o777, len(text), hashlib.sha256(text).digest(), target)


def link_fault(path: str, target: str) -> str | None:
    """Why a link can't be carried to another place; None: it can (dangling ones too)."""
    if target.startswith("/"):
        return f"it is absolute ({target})"
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if end == ".." or end.startswith("../"):
        return f"it leaves the project ({target})"
    return None


def read_content(path: str, entry: Entry) -> bytes | None:
    """The bytes of an entry of kind file or link; None when they are not those any more."""
    try:
        link = entry.kind is Kind.LINK
        data = os.fsencode(os.readlink(path)) if link else _read_regular(path, entry.size)
    except OSError:
        return None
    return data if hashlib.sha256(data).digest() == entry.digest else None


def _read_regular(path: str, size: int) -> bytes:
    """The bytes of a file that should have ``size`` of them; of another, no more than one more."""
    fd = os.open(path, _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        # No file object: it costs as much again as opening and reading a small file.
        data = os.read(fd, size + 1)
        while len(data) < size and (more := os.read(fd, size + 1 - len(data))):
            data += more
        return data
    finally:
        os.close(fd)
