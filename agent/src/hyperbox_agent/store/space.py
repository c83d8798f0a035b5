"""Room on a filesystem: is there enough, and which error says that there was not."""

from __future__ import annotations

import errno
import os

from hyperbox_agent.core.room import BYTES, FILES
from hyperbox_agent.errors import AgentError, ApplyError, NoSpaceError

_CAUSES = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "has no quota left for this user",
    errno.EROFS: "is mounted read-only",
    errno.EMFILE: "was not reached: this process has too many files open",
    errno.ENFILE: "was not reached: this machine has too many files open",
    errno.EFBIG: "can't hold a file of this size",
}
RESERVE = 256 << 10
"""Left free beside what a batch needs: the journal, folders that grow by a block."""


def mount_point(path: str) -> str:
    """Where the filesystem of ``path`` is mounted; ``path`` may not exist yet."""
    path = os.path.realpath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def check_room(folder: str, size: int, inodes: int) -> None:
    """Raise NoSpaceError unless ``size`` bytes and ``inodes`` files more fit on the filesystem.

    Network and copy-on-write filesystems that report no inode count are taken at their word.
    """
    facts = os.statvfs(folder)
    have = facts.f_bavail * facts.f_frsize
    where = mount_point(folder)
    if facts.f_flag & os.ST_RDONLY:
        raise NoSpaceError(f"the filesystem at {where} is mounted read-only", filesystem=where)
    if size + RESERVE > have:
        raise NoSpaceError(f"the filesystem at {where} is full: {size + RESERVE:,} bytes are "
                           f"needed, {have:,} are free", filesystem=where, need=size + RESERVE,
                           have=have, unit=BYTES,
                           hint=f"make room on {where}, or ignore large files")
    if facts.f_files and inodes > facts.f_favail:
        raise NoSpaceError(f"the filesystem at {where} has too few inodes: {inodes:,} are needed, "
                           f"{facts.f_favail:,} are free", filesystem=where, need=inodes,
                           have=facts.f_favail, unit=FILES,
                           hint=f"remove files on {where}")


def typed(error: OSError, folder: str, doing: str) -> AgentError:
    """The error of this room for an OSError met while writing below ``folder``."""
    cause = _CAUSES.get(error.errno or 0)
    if cause is None:
        name = error.filename if isinstance(error.filename, str) else None
        return ApplyError(f"{doing}: {error.strerror or error}", file=name)
    where = mount_point(folder)
    return NoSpaceError(f"{doing}: the filesystem at {where} {cause}", filesystem=where,
                        have=_free(folder))


def _free(folder: str) -> int:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return 0
    return facts.f_bavail * facts.f_frsize
