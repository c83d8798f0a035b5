"""The default watcher on Linux: an inotify loop of our own, without a thread or a dependency.

What a watch on folders can't see: writing through a memory map shows only when the file is closed
and unmapped, and a file that a program keeps open for writing shows only when it is closed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable

from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Hint, Problem, Sink, What
from hyperbox_agent.watch.kernel import (
    FOLDER_MASK,
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_DONT_FOLLOW,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    InotifyCalls,
    LibcInotify,
    RawEvent,
    read_events,
)
from hyperbox_agent.watch.limits import (
    INSTANCES,
    WATCHES,
    instance_limit_problem,
    limit,
    watch_limit_problem,
)
from hyperbox_agent.watch.polling import PERIOD, SHARE, Pace, Poller
from hyperbox_agent.watch.rootguard import Root, RootGuard

ROOT_LOOK = 1.0
"""Seconds between two looks at the root's identity: no event tells that a folder above it moved."""
GONE_LOOK = 0.2
YOUNG_LOOK = 0.1
"""Seconds between two looks at a file that came into being and was not closed after writing yet."""
YOUNG_LOOKS = 20

_WHAT = {
    IN_CLOSE_WRITE: What.WRITTEN,
    IN_MOVED_TO: What.MOVED_IN,
    IN_MOVED_FROM: What.MOVED_OUT,
    IN_DELETE: What.DELETED,
    IN_ATTRIB: What.ATTRIB,
    IN_CREATE: What.CREATED,
}
_KINDS = (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB | IN_CREATE)
_RETURN_MASK = IN_CREATE | IN_MOVED_TO | IN_ONLYDIR


class InotifyWatcher:
    """See ``base.Watcher``. Folders for which the kernel has no watch left are polled."""

    name = "inotify"
    prompt = True

    def __init__(self, root: str, sink: Sink, *, calls: InotifyCalls | None = None,
                 poll_period: float = PERIOD) -> None:
        self._root = os.path.abspath(root)
        self._sink = sink
        self._calls = calls or LibcInotify()
        self._guard = RootGuard(self._root)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = -1
        self._paths: dict[int, str] = {}
        self._wds: dict[str, int] = {}
        self._return_wd = -1
        self._gone = False
        self._young = _YoungFiles(self._root)
        self._poller = Poller(self._root)
        self._pace = Pace(poll_period, SHARE)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.problems: dict[str, Problem] = {}

    # -- as the seam wants it -----------------------------------------------------------------

    def start(self, dirs: Iterable[str]) -> None:
        """See ``base.Watcher``."""
        self._loop = asyncio.get_running_loop()
        self._guard.require()
        self._open()
        for folder in dirs:
            self._watch(folder)
        self._say_limits()
        self._later("root", ROOT_LOOK, self._check_root)

    def add(self, path: str) -> None:
        """See ``base.Watcher``."""
        if self._loop is not None and self._watch(path):
            self._say_limits()
            self._sink([Hint(path, What.CHANGED, time.monotonic(), is_dir=True)])

    def forget(self, path: str) -> None:
        """See ``base.Watcher``."""
        self._poller.forget(path)
        wd = self._wds.pop(path, None)
        if wd is not None:
            self._paths.pop(wd, None)
            self._unwatch(wd)
        self._say_limits()

    def catch_up(self) -> None:
        """See ``base.Watcher``."""
        self._read()

    def drain(self) -> None:
        """See ``base.Watcher``."""
        self._read()
        if len(self._poller):
            self._poll()

    def close(self) -> None:
        """See ``base.Watcher``."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._shut()
        self._loop = None

    # -- the instance and its watches ---------------------------------------------------------

    def _open(self) -> None:
        assert self._loop is not None
        try:
            self._fd = self._calls.init()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise WatchError(f"inotify does not work here: {error.strerror}") from error
            self.problems["instances"] = instance_limit_problem(limit(INSTANCES))
            return
        self.problems.pop("instances", None)
        self._loop.add_reader(self._fd, self._read)

    def _shut(self) -> None:
        """The kernel ends all watches of an instance that is closed."""
        if self._fd >= 0:
            assert self._loop is not None
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._paths.clear()
        self._wds.clear()
        self._return_wd = -1

    def _watch(self, path: str) -> bool:
        """Watch one folder, by events or else by looking; whether that is new."""
        full = os.path.join(self._root, path) if path else self._root
        # The root may be named by a link; nothing below it may.
        mask = FOLDER_MASK if path else FOLDER_MASK & ~IN_DONT_FOLLOW
        try:
            if self._fd < 0:
                return self._poll_too(path)
            wd = self._calls.add(self._fd, full, mask)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return self._poll_too(path)
            # Gone, replaced by something else, or unreadable: its parent tells, or the scan.
            return False
        return self._note(path, wd)

    def _note(self, path: str, wd: int) -> bool:
        self._poller.forget(path)
        known_as = self._paths.get(wd)
        if known_as == path:
            return False
        if known_as is not None:
            self._wds.pop(known_as, None)
        before = self._wds.get(path)
        if before is not None:
            # Another folder took its place; the old one may live on under another name.
            self._paths.pop(before, None)
            self._unwatch(before)
        self._paths[wd] = path
        self._wds[path] = wd
        return True

    def _unwatch(self, wd: int) -> None:
        try:
            self._calls.remove(self._fd, wd)
        except OSError:
            # EINVAL: the kernel ended it first, with its folder.
            pass

    def _later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        assert self._loop is not None
        old = self._timers.pop(name, None)
        if old is not None:
            old.cancel()
        self._timers[name] = self._loop.call_later(seconds, call)

    # -- events -------------------------------------------------------------------------------

    def _read(self) -> None:
        if self._fd < 0:
            return
        hints = self._hints(read_events(self._fd))
        if self._young:
            self._later_young()
        if hints:
            self._sink(hints)

    def _hints(self, events: Iterable[RawEvent]) -> list[Hint]:
        now = time.monotonic()
        hints: list[Hint] = []
        root_in_doubt = False
        for wd, mask, name in events:
            if mask & IN_Q_OVERFLOW:
                hints.append(Hint("", What.LOST, now, is_dir=True))
                continue
            folder = self._paths.get(wd)
            if folder is None:
                root_in_doubt = root_in_doubt or wd == self._return_wd
            elif name:
                self._child(folder, mask, name, now, hints)
            elif mask & IN_ATTRIB:
                hints.append(Hint(folder, What.ATTRIB, now, is_dir=True))
            else:
                root_in_doubt = self._itself(folder, wd, mask, now, hints) or root_in_doubt
        hints += [Hint(path, What.CREATED, now) for path in self._young.settled_now()]
        if root_in_doubt:
            found = self._root_hints()
            # Even if it is there again already: what happened meanwhile was not told.
            if not found and not self._gone:
                found = [Hint("", What.LOST, now, is_dir=True)]
            hints += found
        return hints

    def _child(self, folder: str, mask: int, name: bytes, now: float, hints: list[Hint]) -> None:
        path = f"{folder}/{os.fsdecode(name)}" if folder else os.fsdecode(name)
        if mask & IN_ISDIR:
            hints.append(Hint(path, _WHAT.get(mask & _KINDS, What.CHANGED), now, is_dir=True))
        elif mask & IN_CREATE:
            self._young.born(path)
        elif mask & IN_ATTRIB and path in self._young:
            # Its writer is not done: "cp -p" sets the times before it closes.
            return
        else:
            self._young.forget(path)
            hints.append(Hint(path, _WHAT.get(mask & _KINDS, What.CHANGED), now))

    def _itself(self, folder: str, wd: int, mask: int, now: float, hints: list[Hint]) -> bool:
        """An event of a watched folder itself; whether the root is in doubt."""
        if mask & IN_IGNORED:
            self._paths.pop(wd, None)
            if self._wds.get(folder) == wd:
                del self._wds[folder]
        if mask & IN_UNMOUNT and folder:
            hints.append(Hint(folder, What.LOST, now, is_dir=True))
        return not folder and bool(mask & (IN_IGNORED | IN_UNMOUNT | IN_DELETE_SELF | IN_MOVE_SELF))

    # -- files that are just coming into being ------------------------------------------------

    def _later_young(self) -> None:
        if "young" not in self._timers:
            self._later("young", YOUNG_LOOK, self._look_at_young)

    def _look_at_young(self) -> None:
        self._timers.pop("young", None)
        now = time.monotonic()
        hints = [Hint(path, What.CREATED, now) for path in self._young.look()]
        if self._young:
            self._later_young()
        if hints:
            self._sink(hints)

    # -- the root -----------------------------------------------------------------------------

    def _check_root(self) -> None:
        hints = self._root_hints()
        self._later("root", GONE_LOOK if self._gone else ROOT_LOOK, self._check_root)
        if hints:
            self._sink(hints)

    def _root_hints(self) -> list[Hint]:
        now = time.monotonic()
        watched = "" in self._wds or "" in self._poller
        state = self._guard.state(watch_lost=not watched)
        if state is Root.GONE:
            if self._gone:
                return []
            self._gone = True
            self._wait_for_return()
            self._later("root", GONE_LOOK, self._check_root)
            return [Hint("", What.ROOT_GONE, now, is_dir=True)]
        if state is Root.SAME and not self._gone:
            return []
        self._gone = False
        self._begin_again()
        return [Hint("", What.ROOT_BACK, now, is_dir=True), Hint("", What.LOST, now, is_dir=True)]

    def _wait_for_return(self) -> None:
        """Old watches would report what happens in the folder that was moved away: end them."""
        self._drop_all()
        if self._fd < 0:
            return
        try:
            self._return_wd = self._calls.add(self._fd, os.path.dirname(self._root), _RETURN_MASK)
        except OSError:
            # The folder above is gone as well; the timer looks.
            self._return_wd = -1

    def _begin_again(self) -> None:
        self._drop_all()
        try:
            self._guard.accept()
        except OSError:
            return
        self._watch("")

    def _drop_all(self) -> None:
        self._shut()
        self._young.clear()
        for folder in list(self._poller):
            self._poller.forget(folder)
        self._open()

    # -- folders without a watch --------------------------------------------------------------

    def _poll_too(self, path: str) -> bool:
        if path in self._poller or not os.path.isdir(os.path.join(self._root, path)):
            return False
        self._poller.add(path)
        if "poll" not in self._timers:
            self._later("poll", self._pace.wait, self._tick)
        return True

    def _tick(self) -> None:
        self._timers.pop("poll", None)
        self._try_again()
        self._poll()
        if len(self._poller):
            self._later("poll", self._pace.wait, self._tick)

    def _poll(self) -> None:
        began = time.monotonic()
        hints = [Hint(folder, What.CHANGED, began, is_dir=True) for folder in self._poller.look()]
        self._pace.took(time.monotonic() - began)
        if hints:
            self._sink(hints)

    def _try_again(self) -> None:
        """The user may have raised the limit: then the folders get their watches by themselves."""
        if self._fd < 0 and not self._gone:
            self._open()
        got = []
        for folder in list(self._poller):
            if not self._watch(folder):
                break
            got.append(Hint(folder, What.CHANGED, time.monotonic(), is_dir=True))
        self._say_limits()
        if got:
            self._sink(got)

    def _say_limits(self) -> None:
        polled = len(self._poller)
        if not polled or self._fd < 0:
            self.problems.pop("watches", None)
            return
        need = polled + len(self._wds)
        self.problems["watches"] = watch_limit_problem(need, polled, limit(WATCHES))


class _YoungFiles:
    """Regular files that were created and not closed after writing yet.

    Their writer is at work, mostly, and closing them is the event to wait for. But a hard link and
    a file that was made nameless and then linked are never closed here: those are told by their
    number of links, or by their lying still.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._born: set[str] = set()
        self._seen: dict[str, tuple[int, int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._seen)

    def __contains__(self, path: str) -> bool:
        return path in self._born or path in self._seen

    def born(self, path: str) -> None:
        """A name appeared."""
        self._born.add(path)

    def forget(self, path: str) -> None:
        """Another event told all there is to know."""
        self._born.discard(path)
        self._seen.pop(path, None)

    def clear(self) -> None:
        """Forget all."""
        self._born.clear()
        self._seen.clear()

    def settled_now(self) -> list[str]:
        """Of the names that appeared in this batch, those that are no file being written."""
        done = []
        for path in self._born:
            found = self._look(path)
            if found is None:
                continue
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                done.append(path)
            else:
                self._seen[path] = (found.st_size, found.st_mtime_ns, 0)
        self._born.clear()
        return done

    def look(self) -> list[str]:
        """Those that lay still since the last look."""
        done = []
        for path, (size, mtime, looks) in list(self._seen.items()):
            found = self._look(path)
            if found is None or looks > YOUNG_LOOKS:
                del self._seen[path]
            elif size and (found.st_size, found.st_mtime_ns) == (size, mtime):
                del self._seen[path]
                done.append(path)
            else:
                self._seen[path] = (found.st_size, found.st_mtime_ns, looks + 1)
        return done

    def _look(self, path: str) -> os.stat_result | None:
        try:
            return os.lstat(os.path.join(self._root, path))
        except OSError:
            return None
