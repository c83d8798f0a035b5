"""Watching through the watchfiles package: what there is on macOS and Windows workstations.

It reports neither lost events nor a root that was replaced (measured: silent for ever), so both are
found by looking: at the root's identity, and now and then at every folder's listing.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from collections.abc import Iterable
from typing import Any

from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Hint, Problem, Sink, What
from hyperbox_agent.watch.polling import Pace, Poller
from hyperbox_agent.watch.rootguard import Root, RootGuard

STEP_MS = 2
DEBOUNCE_MS = 20
"""watchfiles hands over when nothing new came for a step, or after this."""
ROOT_LOOK = 1.0
VERIFY = 5.0
VERIFY_SHARE = 0.01


class _Notifier:
    """One running watch of fixed folders, on a thread of its own."""

    def __init__(self, make: Any, paths: list[str], loop: asyncio.AbstractEventLoop,
                 deliver: Any) -> None:
        self._notify: Any = make(paths, False, False, 0, False, True)
        self._stop = threading.Event()
        self._loop = loop
        self._deliver = deliver
        self._thread = threading.Thread(target=self._run, name="watchfiles", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            found = self._notify.watch(DEBOUNCE_MS, STEP_MS, 0, self._stop)
            if not isinstance(found, set):
                return
            try:
                self._loop.call_soon_threadsafe(self._deliver, self, found)
            except RuntimeError:
                # The loop is closed.
                return

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._notify.close()


class WatchfilesWatcher:
    """See ``base.Watcher``. Raises WatchError when watchfiles can't be used."""

    name = "watchfiles"
    prompt = False

    def __init__(self, root: str, sink: Sink, *, verify: float = VERIFY) -> None:
        self._root = os.path.abspath(root)
        self._sink = sink
        self._make = _notifier_class()
        self._guard = RootGuard(self._root)
        self._poller = Poller(self._root)
        self._inodes: dict[str, int | None] = {}
        self._pace = Pace(verify, VERIFY_SHARE)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._notifier: _Notifier | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._gone = False
        self.problems: dict[str, Problem] = {}

    def start(self, dirs: Iterable[str]) -> None:
        """See ``base.Watcher``."""
        self._loop = asyncio.get_running_loop()
        self._guard.require()
        for folder in dirs:
            self._poller.add(folder)
            self._inodes[folder] = self._inode(folder)
        self._renew()
        self._later("root", ROOT_LOOK, self._check_root)
        self._later("verify", self._pace.wait, self._verify)

    def add(self, path: str) -> None:
        """See ``base.Watcher``."""
        if self._loop is None:
            return
        number = self._inode(path)
        if number is None or (path in self._poller and self._inodes.get(path) == number):
            return
        # New, or another folder under a known name: its watch stayed with the old one.
        self._inodes[path] = number
        self._poller.add(path)
        self._renew_soon()
        self._sink([Hint(path, What.CHANGED, time.monotonic(), is_dir=True)])

    def forget(self, path: str) -> None:
        """See ``base.Watcher``. The watch itself ends with the next renewal."""
        self._poller.forget(path)
        self._inodes.pop(path, None)

    def catch_up(self) -> None:
        """See ``base.Watcher``."""

    def drain(self) -> None:
        """See ``base.Watcher``. watchfiles can't be asked, so every listing is looked at."""
        hints = [*self._root_hints(), *self._differences()]
        if hints:
            self._sink(hints)

    def close(self) -> None:
        """See ``base.Watcher``."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._end()
        self._loop = None

    # -- the notifier -------------------------------------------------------------------------

    def _inode(self, path: str) -> int | None:
        try:
            found = os.lstat(os.path.join(self._root, path, "."))
        except OSError:
            return None
        return found.st_ino if stat.S_ISDIR(found.st_mode) else None

    def _renew_soon(self) -> None:
        # Many folders are added in one go; its set of folders can only be given at its making.
        if "renew" not in self._timers:
            self._later("renew", 0, self._renew_and_look)

    def _renew_and_look(self) -> None:
        self._timers.pop("renew", None)
        self._renew()
        hints = self._differences()
        if hints:
            self._sink(hints)

    def _renew(self) -> None:
        assert self._loop is not None
        paths = [os.path.join(self._root, folder) if folder else self._root
                 for folder in self._poller]
        paths = [path for path in paths if os.path.isdir(path)]
        old, self._notifier = self._notifier, None
        try:
            if paths:
                self._notifier = _Notifier(self._make, paths, self._loop, self._deliver)
            self.problems.pop("watchfiles", None)
        except OSError as error:
            self.problems["watchfiles"] = Problem(
                "", f"watchfiles can't watch all folders ({error}); they are looked at in turns"
                    " instead", "sudo sysctl fs.inotify.max_user_watches=524288")
        if old is not None:
            old.close()

    def _end(self) -> None:
        if self._notifier is not None:
            self._notifier.close()
            self._notifier = None

    def _deliver(self, source: _Notifier, found: set[tuple[int, str]]) -> None:
        if self._loop is None or source is not self._notifier:
            # An old one's last words: the renewal's own look has seen what they tell.
            return
        now = time.monotonic()
        hints = []
        for _, path in found:
            relative = os.path.relpath(path, self._root)
            hints.append(Hint("" if relative == "." else relative, What.CHANGED, now,
                              is_dir=relative == "."))
        self._sink(hints)

    # -- looking ------------------------------------------------------------------------------

    def _later(self, name: str, seconds: float, call: Any) -> None:
        assert self._loop is not None
        self._timers[name] = self._loop.call_later(seconds, call)

    def _check_root(self) -> None:
        hints = self._root_hints()
        self._later("root", ROOT_LOOK, self._check_root)
        if hints:
            self._sink(hints)

    def _root_hints(self) -> list[Hint]:
        now = time.monotonic()
        state = self._guard.state()
        if state is Root.GONE:
            if self._gone:
                return []
            self._gone = True
            self._end()
            return [Hint("", What.ROOT_GONE, now, is_dir=True)]
        if state is Root.SAME and not self._gone:
            return []
        self._gone = False
        self._guard.accept()
        for folder in self._poller:
            self._poller.forget(folder)
        self._poller.add("")
        self._renew()
        return [Hint("", What.ROOT_BACK, now, is_dir=True), Hint("", What.LOST, now, is_dir=True)]

    def _verify(self) -> None:
        hints = [] if self._gone else self._differences()
        self._later("verify", self._pace.wait, self._verify)
        if hints:
            self._sink(hints)

    def _differences(self) -> list[Hint]:
        began = time.monotonic()
        hints = [Hint(folder, What.CHANGED, began, is_dir=True) for folder in self._poller.look()]
        self._pace.took(time.monotonic() - began)
        return hints


def _notifier_class() -> Any:
    try:
        from watchfiles._rust_notify import RustNotify
    except ImportError as error:
        raise WatchError("watchfiles is not installed", hint="pip install watchfiles") from error
    return RustNotify
