"""The kernel's limits on inotify, and what to tell the user about them."""

from __future__ import annotations

import os

from hyperbox_agent.watch.base import Problem

WATCHES = "max_user_watches"
INSTANCES = "max_user_instances"
_PLENTY = {WATCHES: 524_288, INSTANCES: 1_024}
# The second one is that of the user namespace (a container's own); the lower one counts.
_FILES = {WATCHES: ("/proc/sys/fs/inotify/max_user_watches",
                    "/proc/sys/user/max_inotify_watches"),
          INSTANCES: ("/proc/sys/fs/inotify/max_user_instances",
                      "/proc/sys/user/max_inotify_instances")}


def limit(name: str) -> int | None:
    """How many the kernel allows this user; None where it can't be read."""
    found = []
    for file in _FILES[name]:
        try:
            with open(file, encoding="ascii") as handle:
                found.append(int(handle.read()))
        except (OSError, ValueError):
            continue
    return min(found, default=None)


def watch_limit_problem(need: int, polled: int, have: int | None) -> Problem:
    """Too few watches for the folders of this project."""
    return Problem(
        "", f"the watch limit is reached: {need} folders need a watch, have {_shown(have)} for all"
        f" programs of this user; {polled} folders are looked at in turns instead",
        _command(WATCHES, need))


def instance_limit_problem(have: int | None) -> Problem:
    """No inotify instance is left."""
    if _out_of_files():
        return Problem("", "this process can open no more files (need 1, have 0 left), so all"
                       " folders are looked at in turns", "raise the limit: ulimit -n 4096")
    return Problem("", f"the limit of inotify instances is reached: need 1 more, have"
                   f" {_shown(have)} for all programs of this user; all folders are looked at in"
                   " turns instead", _command(INSTANCES, (have or 0) + 1))


def _command(name: str, need: int) -> str:
    value = max(_PLENTY[name], 1 << (2 * need - 1).bit_length())
    setting = f"fs.inotify.{name}={value}"
    return (f"sudo sysctl {setting}   (to keep it: echo {setting} |"
            " sudo tee /etc/sysctl.d/60-inotify.conf)")


def _shown(have: int | None) -> str:
    return "an unknown number" if have is None else str(have)


def _out_of_files() -> bool:
    # EMFILE says either; only a try tells which.
    try:
        os.close(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return True
    return False
