"""Writes into the source what a target's program wrote: whole files, and never over an edit.

The source is somebody's work. So a file gets its name only when its content is complete, what
stands there is looked at once more right before, and no link is followed on the way. Where the
filesystem can exchange two names, what was replaced is looked at once more behind it, and put back
where it is not what it was taken for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat

from hyperbox_agent.apply.damage import look_at
from hyperbox_agent.apply.folders import Folders, facts_of
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.plan import parent_of
from hyperbox_agent.store.ops import Ops


class SourceWriter:
    """Use it as a context manager. Methods raise OSError."""

    def __init__(self, root: str, ops: Ops | None = None) -> None:
        self._ops = ops or Ops()
        self._folders = Folders(root)

    def __enter__(self) -> SourceWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._folders.close()

    def write(self, change: Change, content: bytes, *, like: str | None = None) -> bool:
        """Make ``change.path`` hold its new side; False, and nothing done, where the old side is
        not what stands there.

        It may be read and written by those who might before; a new file by those of ``like``.
        """
        new = change.new
        if new is None or self._standing(change.path) != _content(change.old):
            return False
        parent = parent_of(change.path)
        self._make(parent)
        folder, name = self._folders.parent(change.path)
        if new.kind is Kind.DIR:
            self._make(change.path)
            return True
        beside = self._beside(folder, new, content, self._mode_of(like or change.path))
        done, ours = False, True
        try:
            done, ours = self._name(folder, beside, change, name)
        finally:
            if ours:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(beside, dir_fd=folder)
        return done

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
                                              entry.digest, entry.target)), content, like=path):
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

    def _mode_of(self, path: str) -> int | None:
        """The permissions of the file at ``path``; None where there is none."""
        try:
            folder, name = self._folders.parent(path)
        except FileNotFoundError:
            return None
        facts = facts_of(name, folder)
        return stat.S_IMODE(facts.st_mode) & 0o777 if facts and stat.S_ISREG(facts.st_mode) \
            else None

    def _beside(self, folder: int, new: Entry, content: bytes, mode: int | None) -> str:
        """The complete file under a name that the watcher takes for an editor's backup."""
        beside = f".hyperbox-{secrets.token_hex(6)}~"
        if new.kind is Kind.LINK:
            os.symlink(new.target, beside, dir_fd=folder)
            return beside
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        usual = 0o777 if new.executable else 0o666
        fd = os.open(beside, flags, usual if mode is None else 0o600, dir_fd=folder)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            if mode is not None:
                os.fchmod(fd, _executable(mode) if new.executable else mode & ~0o111)
        return beside

    def _name(self, folder: int, beside: str, change: Change, name: str) -> tuple[bool, bool]:
        """Whether it was done, and whether what stands at ``beside`` then is ours to remove."""
        if change.old is None:
            # A second name, since that never takes the place of a file that came in between.
            try:
                os.link(beside, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                return False, True
            return True, True
        if self._standing(change.path) != _content(change.old):
            return False, True
        if not self._exchange(folder, beside, name):
            os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
            return True, True
        came_out = os.path.join(parent_of(change.path), beside)
        if self._standing(came_out) == _content(change.old):
            return True, True
        # It was edited between the look and the exchange. Should our file have been edited too, in
        # the moment that it stood there, that edit stays under the name that it came out to.
        self._exchange(folder, beside, name)
        return False, self._standing(came_out) == _content(change.new)

    def _exchange(self, folder: int, one: str, other: str) -> bool:
        """False where this filesystem, or this system, can't."""
        try:
            self._ops.exchange(one, other, source_dir=folder, target_dir=folder)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
                return False
            raise
        return True


def _executable(mode: int) -> int:
    """Those who may read it may run it, too; its owner always."""
    return mode | (mode & 0o444) >> 2 | 0o100


def _content(entry: Entry | None) -> tuple[Kind, bytes, bool] | None:
    if entry is None:
        return None
    return entry.kind, entry.digest, entry.kind is Kind.FILE and entry.executable
