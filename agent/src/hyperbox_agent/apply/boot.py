"""Whether the machine was started anew since the tree was last known to be whole.

A killed process loses nothing that it wrote; a machine that loses power does. What it had not
written to the disk yet may come back empty, or as zeroes under the same number, size and time: no
stamp tells that, only reading does. Flushing each save would tell it too, at its price.
"""

from __future__ import annotations

import contextlib
import os

BOOT = "boot"
"""The file in a tree's home: the start of the machine in which the whole tree was as recorded."""
_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str | None:
    """Names this start of the machine (random(4)); None: it can't be told."""
    return (_read(_ID) or "").strip() or None


class Boot:
    """What one home knows of it."""

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, BOOT)
        self._now = boot_id()
        self.same = self._now is not None and _read(self._path) == self._now
        """Whether stamps may be believed."""

    def whole(self) -> None:
        """All of the tree is as recorded. A disk that does not take that has us look again."""
        if self.same or self._now is None:
            return
        self.same = True
        with contextlib.suppress(OSError):
            # Half written it is another's name, and all is read once more.
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="ascii") as file:
                file.write(self._now)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(64)
    except (OSError, ValueError):
        return None
