"""Which files are the project's own: below its root, and not in an environment that lies there."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LIBRARIES = ("/site-packages/", "/dist-packages/", "/node_modules/", "/.git/")


class Tree:
    """The project's tree as this process sees it."""

    __slots__ = ("_environments", "_folders", "prefix", "root")

    def __init__(self, root: str, prefixes: Iterable[str] | None = None) -> None:
        self.root = root
        self.prefix = root.rstrip("/") + "/"
        found = prefixes if prefixes is not None else (sys.prefix, sys.base_prefix)
        self._environments = tuple(path.rstrip("/") + "/" for path in found
                                   if path.startswith(self.prefix))
        self._folders: dict[str, str | None] = {}

    def relative(self, path: str) -> str | None:
        """``path`` relative to the root where it is one of the project's own files, else None."""
        if not path.startswith("/"):
            path = os.path.normpath(os.path.join(os.getcwd(), path))
        elif "/." in path or "//" in path:
            path = os.path.normpath(path)
        if path.startswith(self.prefix):
            return self._own(path)
        if self._outside(path):
            return None
        return self._through_links(path)

    def _own(self, path: str) -> str | None:
        if path.startswith(self._environments) if self._environments else False:
            return None
        inside = path[len(self.prefix) - 1:]
        if any(part in inside for part in _LIBRARIES):
            return None
        return inside[1:]

    @staticmethod
    def _outside(path: str) -> bool:
        return "-packages/" in path or path.startswith(
            (sys.base_prefix + "/lib", "/proc/", "/dev/"))

    def _through_links(self, path: str) -> str | None:
        """As ``relative`` where a link leads into the tree; each folder is resolved once."""
        folder, name = os.path.split(path)
        try:
            real = self._folders[folder]
        except KeyError:
            resolved = os.path.realpath(folder)
            inside = (resolved + "/").startswith(self.prefix)
            real = self._folders[folder] = resolved if inside else None
        return None if real is None else self._own(os.path.join(real, name))
