"""Copies of an environment that can be run from where they stand, and the way back.

What an installer puts into an environment holds the environment's path in few places only: the
first line of a console script, ``activate``, ``.pth`` files, ``pyvenv.cfg``. These are text, and
are rewritten; all else runs from anywhere. Everything here blocks.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping

Looks = dict[str, tuple[int, int, int, int, str]]
"""By path below the folder: mode, size, mtime in ns, inode, where a link leads."""

BIG = 1 << 20
"""From this size on, in bytes, files are linked and not copied. Installers replace a file by a new
one; a few write over small ones (lists of what is there, ``.pth``)."""
_NEW = ".hyperbox-new"


def copy(folder: str, onto: str) -> Looks:
    """Make ``onto`` a copy of ``folder`` that runs by itself; gives how it looks. Raises OSError,
    after which nothing is left of it."""
    os.mkdir(onto, 0o700)
    try:
        for path, found in _walk(folder):
            _put(found, os.path.join(onto, path), _rewriter(path, folder, onto))
        return look(onto)
    except BaseException:
        shutil.rmtree(onto, ignore_errors=True)
        raise


def look(folder: str) -> Looks:
    """What is there, so that a later look shows what has changed. Raises OSError."""
    looks: Looks = {}
    for path, found in _walk(folder):
        seen = found.stat(follow_symlinks=False)
        size, at = (0, 0) if stat.S_ISDIR(seen.st_mode) else (seen.st_size, seen.st_mtime_ns)
        looks[path] = (seen.st_mode, size, at, seen.st_ino,
                       os.readlink(found.path) if found.is_symlink() else "")
    return looks


def bring_over(changed: str, before: Mapping[str, object], folder: str) -> int:
    """Repeat in ``folder`` what has changed in its copy ``changed`` since it looked as ``before``;
    gives how many entries that were. What has not changed there is not touched. Can be repeated
    where it was broken off. Raises OSError."""
    now = look(changed)
    done = 0
    for path, found in _walk(changed):
        if before.get(path) != now.get(path):
            _put(found, os.path.join(folder, path), _rewriter(path, changed, folder))
            done += 1
    for path in sorted((path for path in before if path not in now), reverse=True):
        done += _remove(os.path.join(folder, path))
    return done


def _walk(folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below it, folders before what is in them."""
    waiting = [""]
    while waiting:
        base = waiting.pop()
        with os.scandir(os.path.join(folder, base)) as entries:
            found = sorted(entries, key=lambda one: one.name)
        for entry in found:
            path = os.path.join(base, entry.name)
            yield path, entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)


class _Rewriter:
    """Puts one folder's path in the place of another's, where text has it as a whole."""

    def __init__(self, old: str, new: str) -> None:
        names = "|".join(re.escape(one) for one in sorted({old, os.path.realpath(old)}))
        self._old = re.compile(os.fsencode(f"(?:{names})(?![\\w.-])"))
        self._new = os.fsencode(new)

    def __call__(self, data: bytes) -> bytes:
        return self._old.sub(lambda _: self._new, data)


def _rewriter(path: str, old: str, new: str) -> _Rewriter | None:
    """For files that may hold the path of their environment."""
    folder, name = os.path.split(path)
    if folder in ("bin", "") or name.endswith(".pth"):
        return _Rewriter(old, new)
    return None


def _put(found: os.DirEntry[str], target: str, rewrite: _Rewriter | None) -> None:
    """Make ``target`` as ``found`` is, in one moment."""
    if found.is_dir(follow_symlinks=False):
        if os.path.islink(target) or not os.path.isdir(target):
            _remove(target)
            os.mkdir(target)
        os.chmod(target, stat.S_IMODE(found.stat(follow_symlinks=False).st_mode))
        return
    if os.path.isdir(target) and not os.path.islink(target):
        shutil.rmtree(target)
    beside = target + _NEW
    _remove(beside)
    if found.is_symlink():
        led = os.fsencode(os.readlink(found.path))
        os.symlink(rewrite(led) if rewrite is not None else led, os.fsencode(beside))
    elif found.is_file():
        _copy_file(found, beside, rewrite)
    else:
        return  # a socket or a fifo is of the process that made it
    os.replace(beside, target)


def _copy_file(found: os.DirEntry[str], target: str, rewrite: _Rewriter | None) -> None:
    size = found.stat().st_size
    if rewrite is not None and size < BIG:
        with open(found.path, "rb") as file:
            data = file.read()
        changed = data if b"\0" in data else rewrite(data)
        if changed != data:
            with open(target, "wb") as file:
                file.write(changed)
            shutil.copymode(found.path, target)
            return
    if size >= BIG and _linked(found.path, target):
        return
    shutil.copy2(found.path, target)


def _linked(source: str, target: str) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False  # another filesystem, or one without hard links
    return True


def _remove(path: str) -> bool:
    """Whether something was there. A folder that holds more than was known of stays."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (IsADirectoryError, PermissionError):
        try:
            os.rmdir(path)
        except OSError:
            return False
    return True
