"""One process of ours: started without a shell, its end seen by pidfd.

Everything here that waits takes a Clock. What belongs to a process (its tree) is in ``family.py``.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fcntl import ioctl

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import ProgramError, ProgramForbiddenError, ProgramMissingError
from hyperbox_agent.supervise import procfs

MARK = "HYPERBOX_INSTANCE"
"""Environment variable that names the instance in all its descendants."""

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_SH_ON_TTY = 'tty=$1; shift; exec "$@" <>"$tty" >&0 2>&1'
"""A session leader without a terminal that opens one has it as its controlling terminal."""


def become_subreaper() -> bool:
    """From now on orphans below this process become its children. False: the kernel won't."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def is_subreaper() -> bool:
    """Whether ``become_subreaper`` has worked."""
    if not sys.platform.startswith("linux"):
        return False
    answer = ctypes.c_int(0)
    asked = ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(asked == 0 and answer.value)


@dataclass(frozen=True, slots=True)
class Spawn:
    """What to start. ``env`` is the whole environment, ``cwd`` absolute."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    tty: bool = False
    size: tuple[int, int] = (24, 80)
    """Rows and columns of the terminal."""
    pass_fds: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Pipes:
    """Our ends of a process's output: one descriptor a stream, to be read to its end."""

    streams: Mapping[str, int]
    """``{"stdout": fd, "stderr": fd}``, or ``{"stdout": fd}`` for a terminal."""
    stdin: int | None = None
    """Where its input is written; for a terminal a copy of the same descriptor."""

    def close(self) -> None:
        """Close all of them."""
        for fd in self.streams.values():
            os.close(fd)
        if self.stdin is not None:
            os.close(self.stdin)


@dataclass(slots=True)
class Ends:
    """Both sides of a process's three streams, before it is started."""

    ours: Pipes
    theirs: tuple[int, int, int]
    tty: str | None = None
    _closed: bool = field(default=False)

    def close_theirs(self) -> None:
        """The process has them now."""
        if not self._closed:
            self._closed = True
            for fd in set(self.theirs):
                os.close(fd)

    def close(self) -> None:
        """Nothing was started."""
        self.close_theirs()
        self.ours.close()


def open_pipes(*, with_input: bool = True) -> Ends:
    """Pipes for output, and an input that never ends: nothing stops on it, nothing spins.

    Without ``with_input`` the input is empty, for what is to run to its end by itself.
    """
    stdin, feed = _input_pipe() if with_input else (os.open(os.devnull, os.O_RDONLY), None)
    out_reader, out_writer = _output_pipe()
    err_reader, err_writer = _output_pipe()
    return Ends(Pipes({"stdout": out_reader, "stderr": err_reader}, feed),
                (stdin, out_writer, err_writer))


def _input_pipe() -> tuple[int, int | None]:
    """The program's end and ours. The program's is open for both, so that it has a writer as long
    as it has a reader: no end of input, whoever else dies."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        both = os.open(f"/proc/self/fd/{reader}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return reader, writer
    os.close(reader)
    return both, writer


def _output_pipe() -> tuple[int, int]:
    """Our end and the program's. The program's is open for both, as a terminal's is: so the pipe
    has a reader as long as it has a writer, and a program whose agent was killed waits for the
    next one instead of dying of SIGPIPE."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        both = os.open(f"/proc/self/fd/{writer}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return reader, writer
    os.close(writer)
    return reader, both


def reopen_pipes(pid: int) -> Pipes | None:
    """Our ends of the pipes of a process that another agent started; None: can't be had."""
    opened: dict[int, int] = {}
    try:
        for number, flags in ((1, os.O_RDONLY), (2, os.O_RDONLY), (0, os.O_WRONLY)):
            path = f"/proc/{pid}/fd/{number}"
            if not os.readlink(path).startswith("pipe:"):
                raise OSError(f"{path} is no pipe")
            opened[number] = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        for fd in opened.values():
            os.close(fd)
        return None
    return Pipes({"stdout": opened[1], "stderr": opened[2]}, opened[0])


def open_terminal(size: tuple[int, int]) -> Ends:
    """A terminal of its own for a program that wants one."""
    master, slave = pty.openpty()
    set_size(master, *size)
    os.set_blocking(master, False)
    return Ends(Pipes({"stdout": master}, stdin=os.dup(master)), (slave, slave, slave),
                os.ttyname(slave))


def set_size(master: int, rows: int, columns: int) -> None:
    """The terminal's window has this size now; the kernel sends SIGWINCH."""
    ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. Both None: it was not our child, so nobody told us."""

    status: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}"
        return "ended" if self.status is None else f"exit status {self.status}"


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Child:
    """A process that is watched: started by us, forked for us, or taken over."""

    def __init__(self, pid: int, start: int, clock: Clock, *,
                 popen: subprocess.Popen[bytes] | None = None) -> None:
        """``start``: start time as ``procfs`` has it; a process that is gone counts as ended."""
        self.pid = pid
        self.start = start
        self._clock = clock
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._pidfd = -1
        self._polling: asyncio.Task[None] | None = None
        _CLAIMED.add(pid)
        self._watch()

    @classmethod
    def take(cls, pid: int, clock: Clock, *, start: int | None = None) -> Child:
        """Watch a process that somebody else started. Raises ProgramError when it is gone."""
        found = procfs.read_stat(pid)
        if found is None or not found.alive or start not in (None, found.start):
            raise ProgramError(f"process {pid} is gone")
        return cls(pid, found.start, clock)

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._exit.result() if self._exit.done() else None

    async def wait(self) -> Exit:
        """Return when it has ended."""
        return await asyncio.shield(self._exit)

    def send(self, number: signal.Signals) -> bool:
        """Signal it, if it still runs."""
        return self.exit is None and procfs.send(self.pid, self.start, number)

    def forget(self) -> None:
        """Stop watching. One that has ended is buried; one that runs goes on."""
        if not procfs.is_alive(self.pid, self.start):
            self._collect()
            return
        self._unwatch()
        self._release_popen()
        if not self._exit.done():
            self._exit.cancel()

    def _release_popen(self) -> None:
        # So that Popen neither waits for a pid that is not its any more nor warns about it.
        if self._popen is not None:
            self._popen.returncode = 0

    def _watch(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._collect()
            return
        except (OSError, AttributeError):
            # Linux before 5.3, or a seccomp filter: look every 50 ms.
            self._polling = self._loop.create_task(self._poll())
            return
        if not _is_same(self.pid, self.start):
            self._collect()
            return
        self._loop.add_reader(self._pidfd, self._collect)

    def _collect(self) -> None:
        self._unwatch()
        if self._exit.done():
            return
        status = _reap(self.pid)
        self._release_popen()
        self._exit.set_result(_exit_of(status))

    def _unwatch(self) -> None:
        _CLAIMED.discard(self.pid)
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None

    async def _poll(self) -> None:
        while procfs.is_alive(self.pid, self.start):
            await self._clock.sleep(0.05)
        self._polling = None
        self._collect()


def _is_same(pid: int, start: int) -> bool:
    found = procfs.read_stat(pid)
    return found is not None and found.start == start


def _reap(pid: int) -> int | None:
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if done == pid else None


def _exit_of(status: int | None) -> Exit:
    if status is None:
        return Exit()
    code = os.waitstatus_to_exitcode(status)
    return Exit(signal=-code) if code < 0 else Exit(status=code)


def spawn(what: Spawn, ends: Ends, clock: Clock) -> Child:
    """Start a process in a session of its own with these streams.

    Raises ProgramError (the program is missing, may not be executed, the folder is gone). The
    process's sides of ``ends`` are closed here; ours are closed too when it could not be started.
    """
    argv = what.argv
    if ends.tty is not None:
        argv = ("/bin/sh", "-c", _SH_ON_TTY, "sh", ends.tty, *argv)
    stdin, stdout, stderr = ends.theirs
    try:
        popen = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL if ends.tty else stdin, stdout=stdout, stderr=stderr,
            cwd=what.cwd, env=dict(what.env), start_new_session=True, close_fds=True,
            pass_fds=tuple(what.pass_fds), restore_signals=True)
    except (OSError, ValueError) as error:
        ends.close()
        raise _not_started(what, error) from error
    ends.close_theirs()
    found = procfs.read_stat(popen.pid)
    # We wait for it ourselves, by pidfd: Popen must neither wait nor warn when it goes first.
    popen.returncode = 0
    return Child(popen.pid, found.start if found else 0, clock, popen=popen)


def _not_started(what: Spawn, error: OSError | ValueError) -> ProgramError:
    if isinstance(error, FileNotFoundError):
        if not os.path.isdir(what.cwd):
            return ProgramError(f"the folder to start it in is missing: {what.cwd}", key="cwd")
        return ProgramMissingError(f"program not found: {what.argv[0]}", key="command",
                                   hint="is it installed, and on PATH?")
    if isinstance(error, PermissionError):
        return ProgramForbiddenError(f"not permitted to execute {what.argv[0]}", key="command",
                                     hint="is the file executable?")
    return ProgramError(f"{what.argv[0]} could not be started: {error}", key="command")


# ------------------------------------------------------------------------------------- zombies

_CLAIMED: set[int] = set()
"""Children that somebody here waits for."""


class Reaper:
    """Buries orphans that became ours and died, without taking anybody's own children.

    There is no way to ask the kernel whose child a zombie was; but who waits for a child of his
    own collects it at once. So a zombie that nobody claimed is buried when it has been seen twice.
    """

    PAUSE = 2.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: set[tuple[int, int]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sweep now and then until ``close``."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End the sweeping."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def sweep(self) -> list[int]:
        """Bury what was already dead at the last sweep; gives the pids."""
        dead = {(stat.pid, stat.start) for stat in _zombies() if stat.pid not in _CLAIMED}
        buried = [pid for pid, start in dead & self._seen if _reap(pid) is not None]
        self._seen = dead
        return buried

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self.PAUSE)
            self.sweep()


def _zombies() -> list[procfs.Stat]:
    try:
        # Asks whether any child is dead without taking it: one system call when all is well.
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return []
    except ChildProcessError:
        return []
    if procfs.has_children_lists():
        pids = procfs.children(os.getpid())
        found = [stat for stat in map(procfs.read_stat, pids) if stat is not None]
    else:
        found = [stat for stat in procfs.scan().values() if stat.ppid == os.getpid()]
    return [stat for stat in found if stat.state == "Z"]
