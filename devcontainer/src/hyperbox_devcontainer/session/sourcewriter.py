"""Writes into the source what a target's program wrote: whole files, and never over an edit.

The source is somebody's work. So a file gets its name only when its content is complete, what
stands there is looked at once more right before, and no link is followed on the way.
"""

from __future__ import annotations

import contextlib
import os
import secrets

from hyperbox_agent.apply.damage import look_at
from hyperbox_agent.apply.folders import Folders, facts_of
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.plan import parent_of


class SourceWriter:
    """Use it as a context manager. Methods raise OSError."""

    def __init__(self, root: str) -> None:
        self._folders = Folders(root)

    def __enter__(self) -> SourceWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._folders.close()

    def write(self, change: Change, content: bytes) -> bool:
        """Make ``change.path`` hold its new side; False, and nothing done, where the old side is
        not what stands there."""
        new = change.new
        if new is None or self._standing(change.path) != _content(change.old):
            return False
        parent = parent_of(change.path)
        self._make(parent)
        folder, name = self._folders.parent(change.path)
        if new.kind is Kind.DIR:
            self._make(change.path)
            return True
        beside = self._beside(folder, new, content)
        try:
            return self._name(folder, beside, change, name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=folder)

    def keep_beside(self, path: str, word: str, entry: Entry, content: bytes) -> str:
        """Write ``entry`` beside ``path``, as the first free ``NAME.from-WORD``; gives its path.

        One that holds the same already is not written again.
        """
        for count in range(1, 1000):
            taken = f"{path}.from-{word}" + (f"-{count}" if count > 1 else "")
            standing = self._standing(taken)
            if standing == _content(entry):
                return taken
            if standing is None and self.write(
                    Change(taken, None, Entry(taken, entry.kind, entry.mode, entry.size,
                                              entry.digest, entry.target)), content):
                return taken
        raise FileExistsError(f"too many versions beside {path}")

    def _standing(self, path: str) -> tuple[Kind, bytes, bool] | None:
        try:
            folder, name = self._folders.parent(path)
        except FileNotFoundError:
            return None
        facts = facts_of(name, folder)
        if facts is None:
            return None
        return _content(look_at(self._folders, path, facts, None)) or (Kind.FILE, b"", False)

    def _make(self, path: str) -> None:
        """The folder ``path`` with those above. Raises NotADirectoryError for a link on the way."""
        if not path:
            return
        self._make(parent_of(path))
        folder, name = self._folders.parent(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        self._folders.open(path)

    def _beside(self, folder: int, new: Entry, content: bytes) -> str:
        """The complete file under a name that the watcher takes for an editor's backup."""
        beside = f".hyperbox-{secrets.token_hex(6)}~"
        if new.kind is Kind.LINK:
            os.symlink(new.target, beside, dir_fd=folder)
            return beside
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(beside, flags, 0o777 if new.executable else 0o666, dir_fd=folder)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        return beside

    def _name(self, folder: int, beside: str, change: Change, name: str) -> bool:
        if change.old is None:
            # A second name, since that never takes the place of a file that came in between.
            try:
                os.link(beside, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                return False
            return True
        if self._standing(change.path) != _content(change.old):
            return False
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        return True


def _content(entry: Entry | None) -> tuple[Kind, bytes, bool] | None:
    if entry is None:
        return None
    return entry.kind, entry.digest, entry.kind is Kind.FILE and entry.executable
