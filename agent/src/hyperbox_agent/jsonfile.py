"""Small JSON files that are replaced as one unit, and whose damage is no error."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from hyperbox_agent.store.ops import Ops

NEW = ".new"


def read_json(path: str) -> object:
    """The JSON in a file; None where there is none or it is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            found: object = json.load(file)
            return found
    except (OSError, ValueError):
        return None


def write_json(path: str, data: Mapping[str, object]) -> None:
    """Replace a file as one unit: a reader, or the next agent, sees the old or the new one."""
    temporary = path + NEW  # one writer at a time: what a killed one left is written over
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(json.dumps(data))  # not json.dump: that goes without the C encoder
    os.replace(temporary, path)


def write_json_often(path: str, data: Mapping[str, object]) -> None:
    """As ``write_json``, for a file that is replaced all the time.

    ext4 flushes a new file's data when it takes an old one's name, which is most of the price (0.6
    of 0.8 ms). Two files that change places are spared that; the old one goes then. Where the
    machine dies in that moment neither may be left: for what means nothing after a restart of it.
    """
    temporary = path + NEW
    with open(_create(temporary), "wb") as file:
        file.write(json.dumps(data).encode())
    try:
        Ops().exchange(temporary, path)
    except OSError:
        os.replace(temporary, path)  # the first one, or the kernel or the file system can't
    else:
        os.unlink(temporary)


def _create(path: str) -> int:
    """A file of its own, never one that somebody may be reading under its other name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        os.unlink(path)  # a killed writer's
        return os.open(path, flags, 0o600)
