"""Which watcher fits this root: found out by trying, not by the name of the system."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping

from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Problem, Sink, Watcher
from hyperbox_agent.watch.inotify import InotifyWatcher
from hyperbox_agent.watch.kernel import IN_ATTRIB, IN_ONLYDIR, InotifyCalls, LibcInotify
from hyperbox_agent.watch.polling import PollingWatcher
from hyperbox_agent.watch.pyinotify_watcher import PyinotifyCalls, PyinotifyWatcher
from hyperbox_agent.watch.watchfiles_watcher import WatchfilesWatcher

PREFERENCE = "HYPERBOX_WATCHER"
"""Environment variable that names the watcher to use."""

NAMES = ("inotify", "watchfiles", "pyinotify", "polling")

WITHOUT_EVENTS = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "ncpfs",
    "vboxsf", "vmhgfs", "prl_fs", "virtiofs", "drvfs",
})
"""File systems that others write to behind this kernel's back. FUSE ones are added by prefix."""


def choose_watcher(root: str, sink: Sink, *, prefer: str | None = None,
                   environ: Mapping[str, str] | None = None) -> Watcher:
    """The watcher to use for ``root``, not started yet.

    ``prefer`` or ``$HYPERBOX_WATCHER`` names one: then that one, or WatchError saying why not.
    """
    environ = os.environ if environ is None else environ
    wanted = prefer or environ.get(PREFERENCE) or None
    if wanted is not None:
        return _make(wanted, root, sink)
    kind = file_system(root)
    if has_no_events(kind):
        problem = Problem("", f"{root} lies on a file system without change events ({kind}); it is"
                          " looked at in turns", "")
        return PollingWatcher(root, sink, problems={"filesystem": problem})
    reasons = []
    for name in NAMES[:-1]:
        try:
            return _probed(name, root, sink)
        except WatchError as error:
            reasons.append(error.message)
    problem = Problem("", "no change events here: " + "; ".join(reasons), "")
    return PollingWatcher(root, sink, problems={"events": problem})


def _make(name: str, root: str, sink: Sink) -> Watcher:
    makers: Mapping[str, Callable[[], Watcher]] = {
        "inotify": lambda: InotifyWatcher(root, sink, calls=_libc()),
        "watchfiles": lambda: WatchfilesWatcher(root, sink),
        "pyinotify": lambda: PyinotifyWatcher(root, sink),
        "polling": lambda: PollingWatcher(root, sink),
    }
    if name not in makers:
        raise WatchError(f"unknown watcher {name!r}", key=PREFERENCE,
                         hint="one of: " + ", ".join(NAMES))
    return makers[name]()


def _probed(name: str, root: str, sink: Sink) -> Watcher:
    watcher = _make(name, root, sink)
    if name == "inotify":
        _try(_libc(), root)
    elif name == "pyinotify":
        _try(PyinotifyCalls(), root)
    return watcher


def _libc() -> InotifyCalls:
    try:
        return LibcInotify()
    except OSError as error:
        raise WatchError(f"inotify: {error}") from error


def _try(calls: InotifyCalls, root: str) -> None:
    """Cause one event on the root and see it come. Raises WatchError when it does not.

    The event is a change of the root's mode to the mode that it has: it leaves no trace in the
    tree but the folder's change time. Where we may not do that, the watch alone must do.
    """
    try:
        fd = calls.init()
    except OSError:
        # No instance left: the watcher itself says so, and polls until there is one.
        return
    try:
        calls.add(fd, root, IN_ATTRIB | IN_ONLYDIR)
        os.chmod(root, os.stat(root).st_mode & 0o7777)
    except OSError:
        # Not ours, read-only, or no watch left: the watcher deals with that.
        return
    else:
        if not select.select([fd], [], [], 0.2)[0]:
            raise WatchError("inotify tells nothing here")
    finally:
        os.close(fd)


def has_no_events(kind: str) -> bool:
    """Whether changes on a file system of this type may come without an event."""
    return kind in WITHOUT_EVENTS or (kind.startswith("fuse") and kind != "fuseblk")


def file_system(path: str) -> str:
    """The type of the file system that ``path`` lies on, "" where the system does not tell."""
    real = os.path.realpath(path)
    try:
        with open("/proc/self/mountinfo", "rb") as handle:
            lines = handle.read().splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(b" - ")
        point = _unescaped(before.split(b" ")[4])
        inside = real == point or point == "/" or real.startswith(point + "/")
        # The last of several mounts on one point is the one that is seen.
        if inside and len(point) >= best:
            best, kind = len(point), os.fsdecode(after.split(b" ")[0])
    return kind


def _unescaped(field: bytes) -> str:
    for code in (b"\\040", b"\\011", b"\\012", b"\\134"):
        field = field.replace(code, bytes([int(code[1:], 8)]))
    return os.fsdecode(field)
