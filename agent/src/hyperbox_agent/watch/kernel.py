"""inotify(7) as the kernel offers it: constants, three calls, and the reading of its records."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import Protocol

IN_ATTRIB = 0x00000004
IN_CLOSE_WRITE = 0x00000008
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_DELETE_SELF = 0x00000400
IN_MOVE_SELF = 0x00000800
IN_UNMOUNT = 0x00002000
IN_Q_OVERFLOW = 0x00004000
IN_IGNORED = 0x00008000
IN_ONLYDIR = 0x01000000
IN_DONT_FOLLOW = 0x02000000
IN_EXCL_UNLINK = 0x04000000
IN_ISDIR = 0x40000000

FOLDER_MASK = (IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
               | IN_DELETE_SELF | IN_MOVE_SELF | IN_ATTRIB
               | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK)
"""Nothing that a read causes: no OPEN, ACCESS, CLOSE_NOWRITE. A scan of ours must not wake us."""

_HEADER = struct.Struct("iIII")
_BUFFER = 256 * 1024

RawEvent = tuple[int, int, bytes]
"""Watch descriptor, mask, name (empty: the watched folder itself)."""


class InotifyCalls(Protocol):
    """The three system calls; each raises OSError."""

    def init(self) -> int:
        """A new instance, non-blocking and close-on-exec."""
        ...

    def add(self, fd: int, path: str, mask: int) -> int:
        """Watch ``path``; the same descriptor again for the same inode."""
        ...

    def remove(self, fd: int, wd: int) -> None:
        """End a watch."""
        ...


class LibcInotify:
    """The calls through the C library of this process. Raises OSError where it has none."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._init = libc.inotify_init1
            self._add = libc.inotify_add_watch
            self._remove = libc.inotify_rm_watch
        except AttributeError as error:
            raise OSError("this C library has no inotify") from error
        self._add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._remove.argtypes = (ctypes.c_int, ctypes.c_int)

    def init(self) -> int:
        """See InotifyCalls."""
        return _checked(self._init(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, fd: int, path: str, mask: int) -> int:
        """See InotifyCalls."""
        return _checked(self._add(fd, os.fsencode(path), mask))

    def remove(self, fd: int, wd: int) -> None:
        """See InotifyCalls."""
        _checked(self._remove(fd, wd))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def read_events(fd: int) -> Iterator[RawEvent]:
    """All records that the kernel holds for an instance now."""
    while True:
        try:
            data = os.read(fd, _BUFFER)
        except BlockingIOError:
            return
        yield from decode(data)


def decode(data: bytes) -> Iterator[RawEvent]:
    """The records of one read. A name is padded with NULs."""
    at = 0
    unpack, size = _HEADER.unpack_from, _HEADER.size
    while at < len(data):
        wd, mask, _cookie, length = unpack(data, at)
        at += size
        yield wd, mask, data[at:at + length].rstrip(b"\0") if length else b""
        at += length
