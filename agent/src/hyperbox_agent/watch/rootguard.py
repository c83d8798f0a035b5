"""Is the root still the folder it was?"""

from __future__ import annotations

import os
from enum import Enum

from hyperbox_agent.errors import WatchError


class Root(Enum):
    """What stands where the root was."""

    SAME = "same"
    REPLACED = "replaced"
    GONE = "gone"


class RootGuard:
    """Knows a root by its inode. Asking costs one stat.

    An empty folder in the root's place counts as gone: that is what an unmounted disk leaves, and
    what a clone begins with. Nothing is to be deleted anywhere because of it.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._identity: tuple[int, int] | None = None

    def accept(self) -> None:
        """Take what is there as the root from now on. Raises OSError when nothing is."""
        self._identity = self._look()

    def require(self) -> None:
        """``accept`` for a start. Raises WatchError when nothing is there."""
        try:
            self.accept()
        except OSError as error:
            raise WatchError(f"the project folder is gone: {self._root}",
                             file=self._root) from error

    def state(self, *, watch_lost: bool = False) -> Root:
        """``watch_lost``: the kernel ended its watch, so the same number is another folder: file
        systems give the number of a deleted inode to the next one made.
        """
        try:
            found = self._look()
            if found == self._identity and not watch_lost:
                return Root.SAME
            with os.scandir(self._root) as entries:
                return Root.REPLACED if any(True for _ in entries) else Root.GONE
        except OSError:
            return Root.GONE

    def _look(self) -> tuple[int, int]:
        found = os.stat(os.path.join(self._root, "."))
        return found.st_dev, found.st_ino
