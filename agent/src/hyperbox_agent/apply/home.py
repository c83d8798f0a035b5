"""The folder beside the tree that is ours: who owns it, which tree it belongs to.

    <home>/marker       the session and the identity of the root that was filled for it
    <home>/lock         held by the agent that uses this home
    <home>/journal      there while a batch is being applied, and after a crash inside one
    <home>/stage, trash, kept, store, generations, snapshot
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import dataclass
from enum import Enum

from hyperbox_agent.errors import ApplyError, TreeInUseError
from hyperbox_agent.store.ops import Ops

LOCK_WAIT = 1.0
"""Seconds that another owner of a home gets to be done with it."""


class TreeState(str, Enum):
    """What a tree is to the session that asks."""

    KNOWN = "known"
    NEW = "new"
    """Nothing was ever put there for any session."""
    RECREATED = "recreated"
    """Something was, but not for this session, or not in this root, or it was emptied."""


@dataclass(frozen=True, slots=True)
class Marker:
    """Which session filled which root."""

    session: str
    device: int
    inode: int
    born: int
    """When the root was made, as ``store.born.birth`` says: a new folder may get the number of one
    that was removed a moment ago (ext4 does that at once)."""

    @classmethod
    def of(cls, session: str, facts: os.stat_result, born: int) -> Marker:
        """The marker of the root with ``facts``, filled for ``session``."""
        return cls(session, facts.st_dev, facts.st_ino, born)

    def names(self, facts: os.stat_result, born: int) -> bool:
        """Whether the root with ``facts`` is the one that was filled."""
        if (self.device, self.inode) != (facts.st_dev, facts.st_ino):
            return False
        return not self.born or not born or self.born == born

    @classmethod
    def load(cls, home: str) -> Marker | None:
        """The marker in ``home``; None where there is none that can be read."""
        try:
            with open(os.path.join(home, "marker"), encoding="utf-8") as file:
                data = json.load(file)
            return cls(str(data["session"]), int(data["device"]), int(data["inode"]),
                       int(data.get("born", 0)))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, home: str, ops: Ops) -> None:
        """Write it in one step. Raises OSError."""
        path = os.path.join(home, "marker")
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump({"session": self.session, "device": self.device, "inode": self.inode,
                       "born": self.born}, file)
        ops.rename(path + ".new", path)


def default_home(root: str) -> str:
    """Beside the tree, so on its filesystem, where a rename can move a file into the tree."""
    root = os.path.realpath(root)
    return os.path.join(os.path.dirname(root), f".hyperbox-{os.path.basename(root)}")


def prepare(root: str, home: str) -> None:
    """Make both, and refuse a pair between which no rename works.

    Raises ApplyError with what to set.
    """
    try:
        os.makedirs(root, exist_ok=True)
        os.makedirs(home, mode=0o700, exist_ok=True)  # what is above it is not ours to close
        os.chmod(home, 0o700)
    except OSError as error:
        raise ApplyError(f"the tree can't be kept at {root}: {error.strerror}",
                         file=error.filename) from error
    if _inside(os.path.realpath(home), os.path.realpath(root)):
        raise ApplyError(f"the home {home} is inside the tree {root}, where the program would see "
                         "it", file=home, key="home")
    if not _same_mount(root, home):
        raise ApplyError(
            f"the tree {root} and its home {home} are on different filesystems, so no file could "
            "be moved into place in one step", file=home, key="home",
            hint="put the tree into a folder below the mount point, so that the home fits beside "
                 "it, or set the home to a folder of the tree's filesystem")


def lock(home: str) -> int:
    """The descriptor that holds ``home`` for us. Raises TreeInUseError where another has it."""
    fd = os.open(os.path.join(home, "lock"), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # After the death of an agent another process finishes its batch, which is a matter of moments.
    deadline = time.monotonic() + LOCK_WAIT
    while not _try_lock(fd):
        if time.monotonic() >= deadline:
            os.close(fd)
            raise TreeInUseError(f"another agent is using {home}", file=home,
                                 hint="stop it first, or give this one a home of its own")
        time.sleep(0.005)
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def current_umask() -> int:
    """This process's umask, without changing it where the system can say it."""
    with contextlib.suppress(OSError, ValueError, IndexError), \
            open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _same_mount(one: str, other: str) -> bool:
    """A bind mount has the device of its source, and yet no rename crosses it: ask for mounts."""
    if os.stat(one).st_dev != os.stat(other).st_dev:
        return False
    return _mount_id(one) == _mount_id(other)


def _mount_id(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            return next((line for line in file if line.startswith("mnt_id:")), "")
    except OSError:
        return ""  # No /proc: the device has to do.
    finally:
        os.close(fd)
