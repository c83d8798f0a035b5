"""What lies directly in a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection


class Named:
    """An entry that is looked for by name where the folder is not listed; like os.DirEntry."""

    __slots__ = ("_found", "name", "path")

    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        self.path = os.path.join(folder, name)
        self._found = os.lstat(self.path)

    def is_file(self, *, follow_symlinks: bool) -> bool:
        return stat.S_ISREG(self._found.st_mode)

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        return stat.S_ISDIR(self._found.st_mode)

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self._found.st_mode)

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        return self._found


Listed = os.DirEntry[str] | Named


def list_folder(full: str, only: Collection[str] | None) -> list[Listed]:
    """All entries, or those of the names ``only`` that are there. Raises OSError."""
    if only is not None:
        return _look_for(full, only)
    with os.scandir(full) as entries:
        return list(entries)


def _look_for(folder: str, names: Collection[str]) -> list[Listed]:
    found: list[Listed] = []
    for name in sorted(names):
        try:
            found.append(Named(folder, name))
        except OSError:
            continue
    return found


def is_special(listed: Listed) -> bool:
    """Whether it is a socket, a fifo or a device."""
    return not (listed.is_symlink() or listed.is_file(follow_symlinks=False)
                or listed.is_dir(follow_symlinks=False))
