"""What the target's filesystem can't tell apart, or can't hold."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from dataclasses import dataclass

from hyperbox_agent.core.plan import Folding
from hyperbox_agent.store.ops import Ops, remove_tree

_FS_IOC_GETFLAGS = 0x80086601
_FS_CASEFOLD_FL = 0x40000000
_COMPOSED, _DECOMPOSED = "\u00e9", "e\u0301"


@dataclass(frozen=True, slots=True)
class Traits:
    """What is to be known of a filesystem before anything is put there."""

    folding: Folding
    """Which names are one."""
    modes: bool
    """Whether a file has an executable bit of its own (FAT and its kin have none)."""


def traits_of(root: str, home: str, ops: Ops) -> Traits:
    """Of the filesystem that ``root`` and ``home`` are on. Raises OSError."""
    return Traits(folding_of(root, home, ops), _keeps_modes(home, ops))


def folding_of(root: str, home: str, ops: Ops) -> Folding:
    """How names fold in ``root``, found out in ``home``, so that nothing appears in the tree.

    On ext4 and f2fs folding belongs to the folder (``chattr +F``), so the root's flag is asked too.
    Raises OSError when nothing can be written in the home.
    """
    if _folds_by_flag(root):
        return Folding(case=True, forms=True)
    place = os.path.join(home, "names")
    remove_tree(ops, place)
    ops.mkdir(place, 0o700)
    try:
        return Folding(case=_same(place, "probe-a", "probe-A", ops),
                       forms=_same(place, _COMPOSED, _DECOMPOSED, ops))
    finally:
        remove_tree(ops, place)


def _same(place: str, one: str, other: str, ops: Ops) -> bool:
    try:
        os.close(ops.open(os.path.join(place, one), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return os.path.lexists(os.path.join(place, other))
    except (OSError, UnicodeError):
        return False  # A filesystem that refuses the name does not fold it.


def _keeps_modes(home: str, ops: Ops) -> bool:
    path = os.path.join(home, "mode")
    os.close(ops.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        ops.chmod(path, 0o600)
        without = os.stat(path).st_mode & 0o100
        ops.chmod(path, 0o700)
        return not without and bool(os.stat(path).st_mode & 0o100)
    except PermissionError:
        return False
    finally:
        ops.unlink(path)


def _folds_by_flag(folder: str) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8))
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(struct.unpack("=L", answer[:4])[0] & _FS_CASEFOLD_FL)
