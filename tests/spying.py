"""A second watcher inside a tree: what a build tool in the container would get to see."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE, MODIFY = 0x8, 0x40, 0x80, 0x100, 0x200, 0x2
WORDS = {CLOSE_WRITE: "close_write", MOVED_FROM: "moved_from", MOVED_TO: "moved_to",
         CREATE: "create", DELETE: "delete", MODIFY: "modify"}


class Spy:
    """inotify on every folder of a tree, as a build watcher in the container would have it."""

    def __init__(self, root: str) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._root = root
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, str] = {}
        self.seen: list[tuple[str, str]] = []
        for folder, _, _ in os.walk(root):
            watch = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), sum(WORDS))
            self._folders[watch] = os.path.relpath(folder, root)

    def read(self) -> list[tuple[str, str]]:
        """What was seen since the last time. Events of finished calls are there at once."""
        try:
            data = os.read(self._fd, 1 << 20)
        except BlockingIOError:
            return []
        at, seen = 0, []
        while at < len(data):
            watch, mask, _, length = struct.unpack_from("iIII", data, at)
            name = os.fsdecode(data[at + 16 : at + 16 + length].rstrip(b"\0"))
            at += 16 + length
            path = os.path.normpath(os.path.join(self._folders[watch], name)) if name else ""
            seen += [(word, path) for bit, word in WORDS.items() if mask & bit and path]
        return seen

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def spying(root: str) -> Iterator[Spy]:
    spy = Spy(root)
    try:
        yield spy
    finally:
        spy.close()
