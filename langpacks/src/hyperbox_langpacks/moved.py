"""A project whose environment is tried in a copy, which stands elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hyperbox_langpacks.base import Detection, ProjectView


class MovedView:
    """A project as it will be when the folder ``copy`` stands where ``folder`` does now."""

    def __init__(self, view: ProjectView, folder: str, copy: str) -> None:
        self._view = view
        self._folder = folder
        self._copy = copy

    @property
    def root(self) -> str:
        """Absolute path of the root."""
        return self._view.root

    def _path(self, path: str) -> str:
        return rebased(os.path.normpath(os.path.join(self.root, path)), self._folder, self._copy)

    def exists(self, path: str) -> bool:
        """Whether a file or a folder stands at ``path``."""
        return self._view.exists(self._path(path))

    def is_dir(self, path: str) -> bool:
        """Whether a folder stands at ``path``."""
        return self._view.is_dir(self._path(path))

    def read_text(self, path: str, limit: int = 262_144) -> str | None:
        """The first ``limit`` bytes as text; None where there is no file that can be read."""
        return self._view.read_text(self._path(path), limit)

    def list_dir(self, path: str = "") -> Sequence[str]:
        """Names in a folder, sorted; empty where there is none or it can't be read."""
        return self._view.list_dir(self._path(path))


def rebased(path: str, folder: str, onto: str) -> str:
    """A path below ``folder``, or that itself, as one below ``onto``; others as they are."""
    return onto + path[len(folder):] if path == folder or path.startswith(folder + "/") else path


def moved(found: Detection, folder: str, onto: str) -> Detection:
    """What was found, run in the copy ``onto`` of its environment ``folder``."""
    command = found.command
    argv = tuple(rebased(word, folder, onto) for word in command.argv)
    if found.environment is None or found.interpreter is None:
        return found
    return found._replace(command=command._replace(argv=argv),
                          interpreter=rebased(found.interpreter, folder, onto),
                          environment=rebased(found.environment, folder, onto))
