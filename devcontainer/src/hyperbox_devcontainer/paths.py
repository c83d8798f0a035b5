"""Where things are kept: state, runtime and config folders, and what belongs to one project.

Every folder of ours is the owner's alone (0700). A folder that somebody else prepared, opened to
others or replaced by a link is refused: the store may hold secrets, and a socket in such a folder
could be somebody else's.

Part of the quick verbs' start: imports stay few.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import NamedTuple

from hyperbox_devcontainer.errors import InputError, PathsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_LIMIT = 107
"""Bytes that a unix socket's path may have (``sun_path`` is 108 with its NUL)."""

_SLUG_LIMIT = 40


class Project(NamedTuple):
    """One project folder. ``id`` names it in our folders: its name and a hash of its real path."""

    root: str
    name: str
    id: str


def find_project(folder: str = ".") -> Project:
    """The project in ``folder``. Raises InputError where that is no folder."""
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        what = "this is not a folder" if os.path.lexists(root) else "there is no such folder"
        raise InputError(what, file=folder,
                         hint="name the project's folder, or run this inside it")
    name = os.path.basename(root) or "root"
    return Project(root, name, f"{_slug(name)}-{_digest(root)[:8]}")


def _digest(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def _slug(name: str) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return kept[:_SLUG_LIMIT].lstrip(".-") or "project"


def state_dir(environ: Mapping[str, str]) -> str:
    """Where history, stores and homes are kept; not created."""
    return os.path.join(_base(environ, "XDG_STATE_HOME", ".local/state"), "hyperbox")


def config_dir(environ: Mapping[str, str]) -> str:
    """Where the person's own settings are; not created."""
    return os.path.join(_base(environ, "XDG_CONFIG_HOME", ".config"), "hyperbox")


def _base(environ: Mapping[str, str], variable: str, below_home: str) -> str:
    # The XDG rules: a value that is not absolute counts as unset.
    given = environ.get(variable, "")
    return given if os.path.isabs(given) else os.path.join(_home(environ), below_home)


def _home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    import pwd
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return private_tmp()


def private_tmp() -> str:
    """The folder of last resort for sockets; not created."""
    return f"/tmp/hyperbox-{os.getuid()}"  # noqa: S108 -- private_dir() checks owner and links


def runtime_dir(environ: Mapping[str, str]) -> str:
    """Where sockets are; not created.

    A shell that systemd did not start (cron, a hook, ``su``) has no XDG_RUNTIME_DIR; it must still
    find the session that a desktop terminal brought up, so the usual place is tried too.
    """
    for base in (environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}"):
        if os.path.isabs(base) and _is_own_folder(base):
            return os.path.join(base, "hyperbox")
    return private_tmp()


def _is_own_folder(path: str) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def private_dir(path: str) -> str:
    """Make ``path`` a folder that is the owner's alone, or find that it is one; returns it.

    One of ours that others may read is closed to them; one that others may write, a link, or
    somebody else's is refused with PathsError: what is in it could be anybody's.
    """
    try:
        _make(path)
        found = os.lstat(path)
        _refuse_foreign(path, found)
        if found.st_mode & 0o077:
            os.chmod(path, 0o700)
    except OSError as error:
        raise PathsError(f"{path} can't be made: {error.strerror}", file=path,
                         hint="set XDG_STATE_HOME and XDG_RUNTIME_DIR to folders of yours"
                         ) from error
    return path


def _make(path: str) -> None:
    """As ``os.makedirs``, which would leave the folders in between open to all."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make(os.path.dirname(path))
        _make(path)


def _refuse_foreign(path: str, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "no folder"
        raise PathsError(f"{path} is {what}; it must be a folder of yours", file=path,
                         hint=f"look at it, then: rm {path}")
    if found.st_uid != os.getuid():
        raise PathsError(f"{path} belongs to user {found.st_uid}, not to you", file=path,
                         hint="set XDG_RUNTIME_DIR and XDG_STATE_HOME to folders of yours")
    if found.st_mode & 0o022:
        raise PathsError(f"{path} can be written by other users (mode {found.st_mode & 0o777:o})",
                         file=path, hint=f"look at what is in it, then: chmod 700 {path}")


def projects_dir(environ: Mapping[str, str]) -> str:
    """The folder with one folder a project; not created."""
    return os.path.join(state_dir(environ), "projects")


def project_home(project: Project, environ: Mapping[str, str]) -> str:
    """What is kept for one project; not created."""
    return os.path.join(projects_dir(environ), project.id)


def target_home(project: Project, target: str, environ: Mapping[str, str]) -> str:
    """The home of a target that runs in place; not created."""
    # Two names that come to one slug are still two targets.
    plain = _slug(target) if _slug(target) == target else f"{_slug(target)}-{_digest(target)[:8]}"
    return os.path.join(project_home(project, environ), f"target-{plain}")


def history_file(project: Project, environ: Mapping[str, str]) -> str:
    """The project's history; not created."""
    return os.path.join(project_home(project, environ), "history.sqlite")


def session_socket(project: Project, environ: Mapping[str, str]) -> str:
    """Where the project's session listens: a path that fits into a socket address."""
    runtime = runtime_dir(environ)
    short = _digest(project.root)[:16]
    for candidate in (os.path.join(runtime, f"{project.id}.sock"),
                      os.path.join(runtime, f"{short}.sock")):
        if len(os.fsencode(candidate)) <= SOCKET_LIMIT:
            return candidate
    return os.path.join(private_tmp(), f"{short}.sock")
