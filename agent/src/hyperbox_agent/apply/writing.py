"""How a staged file is written, be its batch known already or not."""

from __future__ import annotations

import hashlib
import os

from hyperbox_agent.apply.moves import EXECUTABLE_MODE, FILE_MODE
from hyperbox_agent.errors import StoreError
from hyperbox_agent.store.ops import Ops, write_all

BLOCK = 4096
"""Bytes: what the filesystem gives a file is a multiple of it."""
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def verify(path: str, digest: bytes, data: bytes | memoryview) -> None:
    """Raise StoreError where ``data`` is not the content of ``path`` that was announced."""
    if hashlib.sha256(data).digest() != digest:
        raise not_announced(path)


def not_announced(path: str) -> StoreError:
    """What came for ``path`` is another content."""
    return StoreError(f"the content that came for {path!r} is not what was announced", file=path)


def create(ops: Ops, name: str, folder: int, *, executable: bool) -> int:
    """A new file in an open ``folder``, under its final mode: its descriptor. Raises OSError."""
    return ops.open(name, _FLAGS, EXECUTABLE_MODE if executable else FILE_MODE, dir_fd=folder)


def fill(ops: Ops, fd: int, data: bytes | memoryview) -> None:
    """Write all of a new file. Raises OSError."""
    if data and ops.write(fd, data) != len(data):
        os.lseek(fd, 0, os.SEEK_SET)
        write_all(ops, fd, data)
