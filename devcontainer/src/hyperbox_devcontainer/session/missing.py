"""Files that the program looked for on its target, and that are not sent there: ignored here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from hyperbox_agent.core.plan import is_inside
from hyperbox_agent.watch.ignorefiles import VENV_MARK
from hyperbox_agent.watch.tree import SourceTree

NAMED = 20
"""Paths of one session that are named at most: who looks for so many has another trouble."""
_NOT_SENT = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules", "site-packages"})
"""What has its own way to the target, or none at all."""

Say = Callable[[str, "str | None", "str | None"], None]


class Missing:
    """Names each of them once."""

    def __init__(self, tree: SourceTree, target: str, say: Say) -> None:
        self._tree = tree
        self._target = target
        self._say = say
        self._named: set[str] = set()

    def opened(self, path: str) -> None:
        """The program tried to open ``path``, which is not there."""
        if path in self._named or len(self._named) >= NAMED or not self._kept_back(path):
            return
        self._named.add(path)
        named = json.dumps(path, ensure_ascii=False)
        self._say(f"the program looked for {path}, which is ignored here and so is not on "
                  f"{self._target}", path,
                  f"[sync] include = [{named}] sends it, from the next `hyperbox up` on")

    def _kept_back(self, path: str) -> bool:
        """Whether it is a file of the source that is not sent because it is ignored."""
        folders = path.split("/")[:-1]
        if not is_inside(path) or not _NOT_SENT.isdisjoint(folders):
            return False
        root = self._tree.root
        if path in self._tree.manifest or not os.path.isfile(os.path.join(root, path)):
            return False
        above = ("/".join(folders[:depth + 1]) for depth in range(len(folders)))
        if any(os.path.exists(os.path.join(root, folder, VENV_MARK)) for folder in above):
            return False
        return self._tree.reason(path) is not None
