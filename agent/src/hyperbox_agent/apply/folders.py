"""Folders of a tree by descriptor, reached from its root without following a single link.

The program may put a link where we are about to write. A path that was checked and is then used
again can be swapped in between; a descriptor can't. So every change in the tree is made relative to
the descriptor of its folder, and each folder was opened below its parent with O_NOFOLLOW.
"""

from __future__ import annotations

import os

from hyperbox_agent.core.plan import parent_of

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIMIT = 200
"""Open at once. Batches are sorted by path, so few are opened twice."""


class Folders:
    """Opens folders below one root and keeps them open until ``close``."""

    def __init__(self, root: str) -> None:
        """Raises OSError when ``root`` is no folder. Links in ``root`` itself are its owner's."""
        self._open: dict[str, int] = {"": os.open(root, _FLAGS & ~os.O_NOFOLLOW)}

    @property
    def root(self) -> int:
        """The root's descriptor."""
        return self._open[""]

    def open(self, path: str) -> int:
        """The descriptor of the folder ``path``; it stays ours, and good for the next few calls.

        Raises FileNotFoundError, and NotADirectoryError where a link or a file stands in the way.
        """
        fd = self._open.get(path)
        if fd is None:
            parent = self.open(parent_of(path))
            fd = os.open(path.rpartition("/")[2], _FLAGS, dir_fd=parent)
            if len(self._open) >= _LIMIT:
                self._close_oldest()
            self._open[path] = fd
        return fd

    def parent(self, path: str) -> tuple[int, str]:
        """The descriptor of the folder that holds ``path``, and the name in it."""
        parent, _, name = path.rpartition("/")
        return self.open(parent), name

    def forget(self, path: str) -> None:
        """The folder ``path`` was moved or removed: what is open at or below it is not it now."""
        if not path:
            return
        below = path + "/"
        for known in [name for name in self._open if name == path or name.startswith(below)]:
            os.close(self._open.pop(known))

    def close(self) -> None:
        """Close all."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def __enter__(self) -> Folders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _close_oldest(self) -> None:
        # The root, which is first, stays; a parent that goes is only opened again when needed.
        oldest = [path for path in self._open if path][: _LIMIT // 4]
        for path in oldest:
            os.close(self._open.pop(path))


def facts_of(name: str, folder: int) -> os.stat_result | None:
    """What stands at ``name`` in ``folder``, a link as itself; None: nothing."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
