"""A short private folder for sockets: a unix socket's path has 107 bytes at most."""

from __future__ import annotations

import hashlib
import os
import stat

from hyperbox_agent.errors import AgentError

_LONGEST_NAME = 24
_LONGEST_PATH = 107


def run_dir(home: str) -> str:
    """``home/run`` where its path is short enough, else a folder of ours elsewhere; made here.

    Raises AgentError where such a folder belongs to somebody else or is a link.
    """
    own = os.path.join(home, "run")
    if len(os.fsencode(own)) + 1 + _LONGEST_NAME <= _LONGEST_PATH:
        os.makedirs(own, mode=0o700, exist_ok=True)
        return own
    name = "hyperbox-" + hashlib.sha256(os.fsencode(os.path.abspath(home))).hexdigest()[:12]
    return _private(os.path.join(_short_base(), name))


def _short_base() -> str:
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base) and len(os.fsencode(base)) < 50 and os.path.isdir(base):
        return base
    return _private(f"/tmp/hyperbox-{os.getuid()}")  # noqa: S108 - owner and kind are checked


def _private(path: str) -> str:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise AgentError(f"{path} is not a folder of ours", file=path,
                         hint="remove it, or set XDG_RUNTIME_DIR to a private folder")
    if found.st_mode & 0o077:
        os.chmod(path, 0o700)
    return path
