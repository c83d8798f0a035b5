"""Is git at work on this tree? A checkout in progress is waited out before a batch is complete."""

from __future__ import annotations

import os
import time

STALE_AFTER = 30.0
"""Seconds after which a lock that nobody touches is a leftover of a crash, not work in progress."""


def git_dir(root: str) -> str | None:
    """The real git directory of the work tree that ``root`` lies in; None outside of any.

    In a worktree or a submodule ``.git`` is a file that names it (gitrepository-layout(5)); there
    ``index.lock`` lies in that named folder, not beside the common one.
    """
    folder = os.path.abspath(root)
    while True:
        candidate = os.path.join(folder, ".git")
        if os.path.isdir(candidate):
            return candidate
        if os.path.isfile(candidate):
            return _named_by(candidate)
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _named_by(dot_git: str) -> str | None:
    try:
        with open(dot_git, encoding="utf-8", errors="surrogateescape") as handle:
            line = handle.readline().strip()
    except OSError:
        return None
    if not line.startswith("gitdir:"):
        return None
    return os.path.normpath(os.path.join(os.path.dirname(dot_git), line[len("gitdir:"):].strip()))


class GitLock:
    """Looks at ``index.lock`` of one work tree."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._dir = git_dir(root)

    def held(self) -> bool:
        """Whether git is changing the tree now. A stat when there is a repository, else nothing."""
        if self._dir is None:
            return False
        try:
            found = os.stat(os.path.join(self._dir, "index.lock"))
        except OSError:
            return False
        return time.time() - found.st_mtime < STALE_AFTER

    def look_again(self) -> None:
        """The repository may have been made or moved since."""
        self._dir = git_dir(self._root)
