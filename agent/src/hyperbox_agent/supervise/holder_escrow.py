"""What the holder keeps for the agent: copies of the instances' output pipes.

While an agent lives, nobody reads them here. When it dies, the holder drains them into a file, so
that the program neither blocks on a full pipe nor dies of a closed one, until the next agent comes
for them or nobody came for too long.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
from typing import Any

from hyperbox_agent.supervise.holder_loop import IN, Loop

LOG_LIMIT = 4 * 1024 * 1024
"""A log of an orphan grows to this size twice: the file and the one before it (``.1``)."""
ORPHAN_LOG = "orphan-"
"""What the names of these files begin with."""
_READ = 64 * 1024


def start_time(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot: with the pid it names it for ever."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])


class OrphanLog:
    """Appends to a file of bounded size. A full disk loses output, never the program."""

    __slots__ = ("_fd", "_size", "path", "written")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._size = 0
        self.written = False

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        """Append, starting a new file where the old one is full."""
        try:
            if self._fd < 0:
                self._open()
            if self._size + len(data) > LOG_LIMIT:
                self.close()
                os.replace(self.path, self.path + ".1")
                self._open()
            self._size += os.write(self._fd, data)
            self.written = True
        except OSError:
            pass  # no space, no folder: the pipe must be emptied all the same

    def close(self) -> None:
        """Close the file; it stays for the next agent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Kept:
    """One instance's descriptors, and what the agent wants to know of it when it comes back."""

    __slots__ = ("_draining", "_log", "fds", "info", "number", "pid", "start")

    def __init__(self, number: int, pid: int, fds: list[int], info: dict[str, Any]) -> None:
        self.number = number
        self.pid = pid
        self.start = start_time(pid)
        self.fds = fds
        self.info = info
        self._draining: list[int] = []
        self._log: OrphanLog | None = None

    @property
    def log(self) -> str | None:
        """The file its output went to while no agent was there; None if there was none."""
        return None if self._log is None or not self._log.written else self._log.path

    def alive(self) -> bool:
        """Whether the very process that was kept is still there."""
        return self.start is not None and start_time(self.pid) == self.start

    def drain(self, loop: Loop, path: str) -> None:
        """Read its output into ``path`` from now on."""
        self._log = self._log or OrphanLog(path)
        for fd in self.fds:
            if _is_output(fd):
                os.set_blocking(fd, False)
                self._draining.append(fd)
                loop.watch(fd, IN, lambda _bits, fd=fd: self._read(loop, fd))  # type: ignore[misc]

    def _read(self, loop: Loop, fd: int) -> None:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last writer of a pseudo-terminal is gone
            data = b""
        if data and self._log is not None:
            self._log.write(data)
        else:
            loop.unwatch(fd)
            self._draining.remove(fd)

    def stop_draining(self, loop: Loop) -> None:
        """An agent reads again."""
        for fd in self._draining:
            loop.unwatch(fd)
        self._draining = []

    def end(self, how: signal.Signals) -> None:
        """Signal the process and its group, if it is still that process."""
        if not self.alive():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, how)
            else:
                os.kill(self.pid, how)

    def close(self, loop: Loop) -> None:
        """Give the descriptors back to the system."""
        self.stop_draining(loop)
        for fd in self.fds:
            os.close(fd)
        if self._log is not None:
            self._log.close()


def _is_output(fd: int) -> bool:
    """Whether it is a pipe or terminal that can be read (sockets are kept, not read)."""
    mode = os.fstat(fd).st_mode
    readable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY
    return readable and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))
