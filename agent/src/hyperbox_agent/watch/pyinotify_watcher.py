"""The inotify loop over pyinotify's own binding, where ctypes finds no usable C library."""

from __future__ import annotations

import fcntl
import os
import warnings
from typing import Any

from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Sink
from hyperbox_agent.watch.inotify import InotifyWatcher


class PyinotifyCalls:
    """``kernel.InotifyCalls`` by pyinotify. Raises WatchError when it can't be used."""

    def __init__(self) -> None:
        self._binding: Any = _binding()

    def init(self) -> int:
        """See InotifyCalls."""
        fd = int(self._checked(self._binding.inotify_init()))
        # pyinotify makes a blocking instance that children inherit.
        os.set_blocking(fd, False)
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        return fd

    def add(self, fd: int, path: str, mask: int) -> int:
        """See InotifyCalls."""
        return int(self._checked(self._binding.inotify_add_watch(fd, path, mask)))

    def remove(self, fd: int, wd: int) -> None:
        """See InotifyCalls."""
        self._checked(self._binding.inotify_rm_watch(fd, wd))

    def _checked(self, result: int) -> int:
        if result < 0:
            number = int(self._binding.get_errno())
            raise OSError(number, os.strerror(number))
        return result


def _binding() -> Any:
    try:
        with warnings.catch_warnings():
            # It imports asyncore, which is deprecated in Python 3.10 and 3.11.
            warnings.simplefilter("ignore")
            import pyinotify
    except ModuleNotFoundError as error:
        if error.name == "asyncore":
            raise WatchError("pyinotify needs the package pyasyncore on Python 3.12 and newer",
                             hint="pip install pyasyncore") from error
        raise WatchError("pyinotify is not installed", hint="pip install pyinotify") from error
    binding = pyinotify.INotifyWrapper.create()
    if binding is None:
        raise WatchError("pyinotify found no inotify on this system")
    return binding


class PyinotifyWatcher(InotifyWatcher):
    """See ``base.Watcher``. Raises WatchError when pyinotify can't be used."""

    name = "pyinotify"

    def __init__(self, root: str, sink: Sink) -> None:
        super().__init__(root, sink, calls=PyinotifyCalls())
