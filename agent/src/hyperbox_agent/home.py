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

LOCK = "agent.lock"
"""In the run folder while an agent lives."""
NOTED = "run-place"
"""In a home whose sockets are elsewhere: where."""
REFUSED = "elsewhere"
"""In a home's ``run`` where no socket can stand."""

_FOR_NOW = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE,
                      errno.ENFILE})
"""Why no socket could be made in a folder that could hold one."""


def make_private(path: str) -> None:
    """Make ``path``, and what is missing above it, the owner's alone, whatever the umask says.

    As ``os.makedirs`` with ``exist_ok``, which leaves the folders in between to the umask. Raises
    OSError.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except FileNotFoundError:
        make_private(os.path.dirname(path))
        make_private(path)


def private_folder(path: str) -> str:
    """Make ``path`` a folder that is its owner's alone, or find that it is; gives it.

    Raises AgentError where somebody else's folder or a link stands there.
    """
    try:
        make_private(path)
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
    filesystem has no sockets (FAT, some network and FUSE ones). Made where it is not there.

    The other place is under ``$XDG_RUNTIME_DIR`` or ``/tmp``, private, and named by a hash of the
    home. It is noted in the home: who comes later may have another environment (cron has no
    ``$XDG_RUNTIME_DIR``).
    """
    inside = os.path.join(home, "run")
    if _fits(inside) and _takes_sockets(private_folder(inside)):
        return inside
    noted = _noted(home)
    if noted is not None:
        with contextlib.suppress(AgentError):  # its runtime folder went with the last boot
            return private_folder(noted)
    place = _place_elsewhere(home)
    private_folder(os.path.dirname(place))
    private_folder(place)
    _note(home, place)
    return _noted(home) or place


def find_run_folder(home: str) -> str | None:
    """Where the sockets of ``home`` are, for who only asks: nothing is made. None: nowhere yet."""
    inside = os.path.join(home, "run")
    refused = os.path.lexists(os.path.join(inside, REFUSED))
    places = [inside] if _fits(inside) and not refused else [_noted(home), _place_elsewhere(home)]
    return next((place for place in places if place is not None and os.path.isdir(place)), None)


def _fits(folder: str) -> bool:
    return len(os.fsencode(folder)) + 24 <= SOCKET_LIMIT


def _place_elsewhere(home: str) -> str:
    owner = f"hyperbox-{os.geteuid()}"
    name = hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:16]
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if not base or not _fits(os.path.join(base, owner, name)):
        base = "/tmp"  # noqa: S108 -- made private by who uses it
    return os.path.join(base, owner, name)


def _note(home: str, place: str) -> None:
    """Best effort: where it fails, everyone with the same environment comes to the same place."""
    path = os.path.join(home, NOTED)
    with contextlib.suppress(OSError, AgentError):
        private_folder(home)
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(os.fsencode(f"{os.path.realpath(home)}\0{place}"))
        os.replace(path + ".new", path)


def _noted(home: str) -> str | None:
    """The place that was noted for this very home, not for one that it is a copy of."""
    try:
        with open(os.path.join(home, NOTED), "rb") as file:
            of, _, place = os.fsdecode(file.read()).partition("\0")
    except OSError:
        return None
    return place if os.path.isabs(place) and of == os.path.realpath(home) else None


def _takes_sockets(folder: str) -> bool:
    """Whether a socket can stand in ``folder``: one answer for all while an agent lives."""
    if os.path.lexists(os.path.join(folder, LOCK)):
        return True
    refused = os.path.join(folder, REFUSED)
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
