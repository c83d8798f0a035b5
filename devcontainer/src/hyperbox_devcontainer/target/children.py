"""Child processes without asyncio's watcher: spawned with ``posix_spawn``, reaped by a pidfd.

A child of ours may outlive us on purpose (the agent), which ``subprocess`` and asyncio's transports
take for a mistake. ``posix_spawn`` is also the quickest way: it doesn't copy our page tables.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence

RESTORED = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM,
            signal.SIGHUP]
"""Signals that Python or a shell above us may ignore; a program gets them in their first state."""


class Child:
    """One child process. Lives on one event loop."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._status: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            # macOS, or a kernel before 5.3.
            self._waiting = asyncio.ensure_future(self._wait_in_thread())
        else:
            self._loop.add_reader(self._pidfd, self._reap)

    @property
    def ended(self) -> bool:
        """Whether it is known to have ended."""
        return self._status.done()

    async def wait(self) -> int:
        """Its exit status, 128 + n after signal n. Cancelling the wait leaves the child alone."""
        return await asyncio.shield(self._status)

    async def ended_within(self, seconds: float) -> bool:
        """Wait so long for its end; whether it came."""
        await asyncio.wait({self._status}, timeout=seconds)
        return self.ended

    def signal(self, number: int) -> None:
        """Send a signal to its whole process group; nothing when it has ended."""
        if self.ended:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass  # it ended between the look and the call; it isn't reaped, so no other has its id

    async def end(self, grace: float) -> None:
        """SIGTERM, after ``grace`` seconds SIGKILL, to the whole group; returns when it ended."""
        self.signal(signal.SIGTERM)
        await asyncio.wait({self._status}, timeout=grace)
        self.signal(signal.SIGKILL)
        await asyncio.wait({self._status})

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._settle(os.WNOHANG)

    async def _wait_in_thread(self) -> None:
        await asyncio.to_thread(os.waitid, os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._settle(0)

    def _settle(self, options: int) -> None:
        try:
            _, status = os.waitpid(self.pid, options)
        except ChildProcessError:
            status = 0xFF00  # somebody in this process reaps every child: how it ended is lost
        if not self._status.done():
            code = os.waitstatus_to_exitcode(status)
            self._status.set_result(code if code >= 0 else 128 - code)


def spawn(argv: Sequence[str], env: Mapping[str, str], fds: tuple[int, int, int]) -> Child:
    """Start a program in a session of its own with ``fds`` as its standard streams.

    Raises FileNotFoundError when there is no such program on the ``PATH`` of ``env``, OSError.
    """
    program = shutil.which(argv[0], path=env.get("PATH", os.defpath))
    if program is None:
        raise FileNotFoundError(2, "no such program", argv[0])
    actions: list[tuple[int, ...]] = [
        (os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)]
    actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()]
    pid = os.posix_spawn(program, list(argv), dict(env), file_actions=actions, setsid=True,
                         setsigmask=[], setsigdef=RESTORED)
    return Child(pid)


def _inherited() -> list[int]:
    """Descriptors that whoever started us left open for every child.

    One that outlives us with the agent would keep a pipe or a lock of that shell for a day.
    """
    open_ones = (int(name) for name in os.listdir("/dev/fd") if name.isdigit())
    return [fd for fd in open_ones if fd > 2 and _is_inheritable(fd)]


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False  # the one that the listing itself was read from
