"""The target's home: the folder of our own beside a program, and the short paths of its sockets."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import stat

from hyperbox_agent.errors import AgentError

SOCKET_LIMIT = 107
"""Bytes of a unix socket's path (``sun_path`` is 108 with its NUL, unix(7))."""

_FOR_NOW = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE,
                      errno.ENFILE})
"""Why no socket could be made in a folder that could hold one."""


def private_folder(path: str) -> str:
    """Make ``path`` a folder that is its owner's alone, or find that it is; gives it.

    Raises AgentError where somebody else's folder or a link stands there.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError as error:
        raise AgentError(f"{path} can't be made: {error.strerror}", file=path) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise AgentError(f"{path} is not a folder of this user", file=path,
                         hint=f"look at it, then remove it: rm -r {path}")
    if found.st_mode & 0o077:
        os.chmod(path, 0o700)
    return path


def run_folder(home: str) -> str:
    """Where the sockets of ``home`` are: in it, or elsewhere where that path is too long or its
    filesystem has no sockets (FAT, some network and FUSE ones).

    The other place is under ``$XDG_RUNTIME_DIR`` or ``/tmp``, private, and named by a hash of the
    home, so that everyone who knows the home finds it.
    """
    inside = os.path.join(home, "run")
    if len(os.fsencode(inside)) + 24 <= SOCKET_LIMIT and _takes_sockets(private_folder(inside)):
        return inside
    owner = f"hyperbox-{os.geteuid()}"
    name = hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:16]
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if not base or len(os.fsencode(os.path.join(base, owner, name))) + 24 > SOCKET_LIMIT:
        base = "/tmp"  # noqa: S108 -- made private below
    return private_folder(os.path.join(private_folder(os.path.join(base, owner)), name))


def _takes_sockets(folder: str) -> bool:
    """Whether a socket can stand in ``folder``; tried once, since all must come to one answer."""
    if os.path.lexists(os.path.join(folder, "agent.lock")):
        return True
    refused = os.path.join(folder, "elsewhere")
    if os.path.lexists(refused):
        return False
    tried = os.path.join(folder, f"try-{os.getpid()}")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(tried)
        os.unlink(tried)
    except OSError as error:
        if error.errno in _FOR_NOW:
            return True  # whoever needs one there says what is wrong
        with contextlib.suppress(OSError):
            os.close(os.open(refused, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return False
    return True


def own_folder(root: str) -> str:
    """The home of a program that the agent runs alone."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(
        os.path.expanduser("~"), ".local", "state")
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    return private_folder(os.path.join(
        base, "hyperbox", "alone", f"{os.path.basename(root) or 'root'}-{name}"))
