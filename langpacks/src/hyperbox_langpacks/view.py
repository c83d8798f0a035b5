"""Two looks at a project's tree: a folder on this machine, and a tree in memory for tests."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence


class FolderView:
    """A real folder. Absolute paths are taken as they are: environments lie elsewhere."""

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)

    @property
    def root(self) -> str:
        """Absolute path of the root."""
        return self._root

    def _path(self, path: str) -> str:
        return os.path.join(self._root, path)

    def exists(self, path: str) -> bool:
        """Whether a file or a folder stands at ``path``."""
        return os.path.exists(self._path(path))

    def is_dir(self, path: str) -> bool:
        """Whether a folder stands at ``path``."""
        return os.path.isdir(self._path(path))

    def read_text(self, path: str, limit: int = 262_144) -> str | None:
        """The first ``limit`` bytes as text; None where there is no file that can be read."""
        target = self._path(path)
        # A fifo or a device would be waited for without end.
        if not os.path.isfile(target):
            return None
        try:
            with open(target, "rb") as file:
                return file.read(limit).decode("utf-8", "replace")
        except OSError:
            return None

    def list_dir(self, path: str = "") -> Sequence[str]:
        """Names in a folder, sorted; empty where there is none or it can't be read."""
        try:
            return sorted(os.listdir(self._path(path)))
        except OSError:
            return []


class MemoryView:
    """A tree of texts by path, absolute ones for what lies outside; folders follow from them."""

    def __init__(self, files: Mapping[str, str], root: str = "/project",
                 folders: Iterable[str] = ()) -> None:
        self._root = root
        self._files = {self._path(path): text for path, text in files.items()}
        self._folders = {root}
        for path in (*self._files, *(self._path(folder) + "/x" for folder in folders)):
            self._add_parents(path)

    def _add_parents(self, path: str) -> None:
        parent = posixpath.dirname(path)
        while parent not in self._folders and parent != "/":
            self._folders.add(parent)
            parent = posixpath.dirname(parent)

    @property
    def root(self) -> str:
        """Absolute path of the root."""
        return self._root

    def _path(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self._root, path))

    def exists(self, path: str) -> bool:
        """Whether a file or a folder stands at ``path``."""
        full = self._path(path)
        return full in self._files or full in self._folders

    def is_dir(self, path: str) -> bool:
        """Whether a folder stands at ``path``."""
        return self._path(path) in self._folders

    def read_text(self, path: str, limit: int = 262_144) -> str | None:
        """The first ``limit`` characters; None: no file."""
        text = self._files.get(self._path(path))
        return None if text is None else text[:limit]

    def list_dir(self, path: str = "") -> Sequence[str]:
        """Names in a folder, sorted; empty where there is none."""
        prefix = self._path(path).rstrip("/") + "/"
        inside = [one[len(prefix):] for one in (*self._files, *self._folders)
                  if one.startswith(prefix)]
        return sorted({one.partition("/")[0] for one in inside} - {""})
