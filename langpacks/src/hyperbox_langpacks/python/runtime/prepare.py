"""Prepares the parent: imports what the program imports from outside its tree, one by one.

An import that would not survive a fork (it started a thread, opened a connection) or that pulled in
the project's own code can't be undone. The worker then starts itself anew, without that module.
"""

from __future__ import annotations

import gc
import os
import sys

from . import AT_START, dummy, shim
from .wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from typing import Any

RESUMED = "HYPERBOX_WORKER_RESUMED"
MAX_RESTARTS = 5
DUMMY = "(dummy request)"
FORK_SAFE = frozenset(("numpy", "scipy"))
"""Libraries whose threads end before a fork and start again by need: OpenBLAS registers
``blas_thread_shutdown`` by ``pthread_atfork`` (OpenBLAS, driver/others/memory.c)."""


class TreeTouchedError(BaseException):
    """A library asked for a module that the project has: not to be swallowed by its ``except``."""


class TreeBlocker:
    """A finder that stands first and refuses what the project has, and what was refused before."""

    def __init__(self, entries: Sequence[str], refused: Mapping[str, str]) -> None:
        self.names = top_level_names(entries)
        self.refused = refused
        self.touched: str | None = None

    def find_spec(self, name: str, path: Sequence[str] | None = None,
                  target: object = None) -> None:
        """None, or TreeTouchedError."""
        if (path is None and name in self.names) or name in self.refused:
            self.touched = name
            raise TreeTouchedError(name)


def top_level_names(entries: Iterable[str], among: Container[str] | None = None) -> set[str]:
    """Names that an import would find in these folders, of those asked for."""
    names = set()
    for folder in entries:
        try:
            listing = os.listdir(folder or ".")
        except OSError:
            continue  # An entry of sys.path that is no folder: an archive, or not there.
        for name in listing:
            stem = name.partition(".")[0]
            if (among is None or stem in among) and _is_module(folder, name):
                names.add(stem)
    return names


def _is_module(folder: str, name: str) -> bool:
    if name.endswith((".py", ".so", ".pyc")):
        return True
    return "." not in name and os.path.exists(os.path.join(folder, name, "__init__.py"))


def shadowed(entries: Iterable[str]) -> str | None:
    """A module that is imported here from a library, though the project has one of that name."""
    ours = top_level_names(entries, sys.modules)
    return min(ours - AT_START - set(sys.builtin_module_names) - {"_hyperbox"}, default=None)


def take_resumed(environ: Any) -> dict[str, Any] | None:
    """The request for which this process was started anew, if it was."""
    import json

    text = environ.pop(RESUMED, None)
    resumed: dict[str, Any] | None = json.loads(text) if text else None
    return resumed


def prepare(wire: Wire, spec: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Import, warm up, freeze. Answers what was imported and what was refused, and why."""
    entries: list[str] = spec["path"]
    refused: dict[str, str] = dict(request.get("refused", {}))
    name = shadowed(entries)
    if name is not None:
        return {"ok": False, "error": f"the project's own {name} stands before the library "
                                      f"{name}, which a prepared parent has already imported"}
    gc.disable()
    shim.install()
    blocker = TreeBlocker(entries, refused)
    sys.meta_path.insert(0, blocker)
    try:
        count, bad = import_all(request.get("preload", ()), refused, blocker)
        if not bad and DUMMY not in refused:
            bad = _serve_dummy()
    finally:
        sys.meta_path.remove(blocker)
    if bad:
        return _start_anew(wire, request, {**refused, **bad})
    gc.collect()
    gc.freeze()
    return {"ok": True, "imported": count, "refused": _refusals(refused)}


def _refusals(refused: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"module": module, "reason": reason} for module, reason in refused.items()]


def import_all(names: Sequence[str], refused: Mapping[str, str],
               blocker: TreeBlocker) -> tuple[int, dict[str, str]]:
    """Import each; the count of those that are there, and those that must not be."""
    count, bad = 0, {}
    for name in sorted(names, key=_turn):
        if name in refused or name == "__main__":
            continue
        before = Footprint()
        reason = _import(name, blocker) or before.grown(allow_threads=_is_fork_safe(name))
        if reason is not None:
            bad[name] = reason
        count += name in sys.modules
    return count, bad


def _turn(name: str) -> tuple[bool, bool]:
    """Libraries that may have threads first, so that nobody else is blamed for theirs; private
    modules last: ``_asyncio`` before ``asyncio`` makes that fall back to its slow twin, and then
    half of it does not know the other half.
    """
    is_private = any(part.startswith("_") for part in name.split("."))
    return (not _is_fork_safe(name), is_private)


def _is_fork_safe(name: str) -> bool:
    return name.partition(".")[0] in FORK_SAFE


def _import(name: str, blocker: TreeBlocker) -> str | None:
    """Import one module; why it must not be, or None. A module that isn't there is no harm."""
    blocker.touched = None
    try:
        __import__(name)
    except TreeTouchedError:
        pass
    except Exception:  # noqa: BLE001 - third-party code; the program will meet the same error itself
        return None
    except SystemExit:
        return f"{name} ends the interpreter when it is imported"
    if blocker.touched is None:
        return None
    if blocker.touched in blocker.refused:
        return f"{name} imports {blocker.touched}: {blocker.refused[blocker.touched]}"
    return f"{name} imports {blocker.touched} from the project's own tree"


class Footprint:
    """What this process holds that a fork does not carry over, at one moment."""

    __slots__ = ("children", "descriptors", "threads")

    def __init__(self) -> None:
        self.threads = count_threads()
        self.descriptors = open_descriptors()
        self.children = children()

    def grown(self, *, allow_threads: bool = False, allow_pipes: bool = False) -> str | None:
        """What has come since that would not survive a fork, in words; None if nothing."""
        threads = count_threads() - self.threads
        if threads > 0 and not allow_threads:
            return f"it started {threads} thread{'s' * (threads > 1)} when it was imported"
        for fd, what in open_descriptors().items():
            if allow_pipes and what.startswith("pipe:"):
                continue
            if fd not in self.descriptors and (kind := _unsafe_kind(fd, what)):
                return f"it opened {kind} when it was imported"
        if children() - self.children:
            return "it started a process when it was imported"
        return None


def count_threads() -> int:
    """Threads of this process, native ones included."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        import threading

        return threading.active_count()


def open_descriptors() -> dict[int, str]:
    """Open descriptors by what they are, as ``/proc`` names them."""
    found = {}
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # The listing's own descriptor is closed by now.
    return found


def _unsafe_kind(fd: int, what: str) -> str | None:
    """The kind of a descriptor that must not be shared with every instance, or None."""
    if what.startswith("socket:"):
        return "a connection or socket"
    if what.startswith("pipe:"):
        return "a pipe"
    if what.startswith("anon_inode:"):
        return "an event loop or a watcher (" + what.partition(":")[2].strip("[]") + ")"
    if what.startswith("/") and not what.startswith("/dev/") and _is_writable(fd):
        return f"{what} for writing"
    return None


def _is_writable(fd: int) -> bool:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def children() -> set[int]:
    """Child processes; none where the kernel keeps no list of them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:
        return set()


def end_children() -> None:
    """End what an import started: it would go on as a child of the worker that we become."""
    import signal

    for pid in children():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _serve_dummy() -> dict[str, str]:
    """Warm up; a dummy request that leaves something behind is refused like a module."""
    before = Footprint()
    dummy.serve()
    # libuv keeps one pipe for signals, which it makes anew in a forked child by ``pthread_atfork``
    # (libuv, src/unix/signal.c, ``uv__signal_global_reinit``).
    reason = before.grown(allow_pipes=True)
    return {DUMMY: reason} if reason else {}


def _start_anew(wire: Wire, request: Mapping[str, Any],
                refused: Mapping[str, str]) -> dict[str, Any]:
    """Replace this process by a new worker that goes on with the request without the refused."""
    import json

    tries = int(request.get("tries", 0)) + 1
    if tries > MAX_RESTARTS:
        names = ", ".join(refused)
        return {"ok": False, "error": f"after {tries} tries still unsafe to fork: {names}",
                "refused": _refusals(refused)}
    again = {**request, "refused": dict(refused), "tries": tries}
    os.environ[RESUMED] = json.dumps(again)
    wire.keep_over_exec()
    end_children()
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *_own_arguments()])  # noqa: S606 - ourselves again
    raise AssertionError("execv returned")


def _own_arguments() -> list[str]:
    spec: dict[str, Any] = __import__("json").loads(os.environ["HYPERBOX_WORKER_SPEC"])
    return [*spec.get("options", ()), spec["main"]]
