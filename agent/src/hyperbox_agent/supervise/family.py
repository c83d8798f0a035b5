"""All processes of one instance: found, ended, frozen.

A process belongs to an instance when it is below its first process, is in its session or group,
or carries its mark in the environment that it was started with (daemons that forked twice).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.supervise import procfs
from hyperbox_agent.supervise.process import MARK, is_subreaper
from hyperbox_agent.supervise.procfs import Stat

_KILL_ROUNDS = 50
_STOP_LIMIT = 1.0
"""Seconds to wait for a process to stop; it takes some 20 µs."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the end of a family went."""

    count: int
    """Processes that had to be ended."""
    killed: tuple[int, ...] = ()
    """Those that SIGTERM and the grace did not end."""
    left: tuple[int, ...] = ()
    """Those that could not be ended at all (another user's)."""


@dataclass(frozen=True, slots=True)
class Family:
    """Names the processes of one instance."""

    pid: int
    start: int
    mark: str
    """Value of ``HYPERBOX_INSTANCE``. Empty for a prepared parent: the kernel shows its mark in
    all that it forked, which must outlive it."""
    pool: str = ""
    """For an instance that was forked: the mark of the parent that it was forked from, since the
    kernel shows that one's environment for it and for what it forks."""
    others: frozenset[int] = field(default_factory=frozenset)
    """Pids with that parent's mark that are known to belong elsewhere: itself, its other forks."""
    until: int = 0
    """When the next instance of that parent began, or now: what is younger is not ours."""

    def members(self) -> list[Stat]:
        """The living ones, from a scan of all processes: complete, a few ms."""
        table = procfs.scan()
        head = table.get(self.pid)
        # The pid of a first process that is gone is not reused while its group or session lives.
        reused = head is not None and head.start != self.start
        seeds = [] if reused else [
            stat.pid for stat in table.values()
            if self.pid in (stat.pid, stat.group, stat.session)]
        seeds += [stat.pid for stat in table.values() if self._is_marked(stat)]
        return [stat for stat in procfs.descendants_in(table, seeds)
                if stat.alive and stat.pid != os.getpid()]

    def near(self) -> list[Stat]:
        """The living ones, quickly: below the first process, and daemons that became ours."""
        if not procfs.has_children_lists():
            return self.members()
        head = procfs.read_stat(self.pid)
        seeds = [self.pid] if head is not None and head.start == self.start else []
        for pid in procfs.children(os.getpid()):
            stat = procfs.read_stat(pid) if pid not in seeds else None
            if stat is not None and (stat.session == self.pid or self._is_marked(stat)):
                seeds.append(pid)
        return [stat for stat in procfs.descendants(seeds) if stat.alive]

    def _is_marked(self, stat: Stat) -> bool:
        # None of it is older than its first process: this spares reading most environments.
        if not self.mark or stat.start < self.start or not stat.alive or stat.pid in self.others:
            return False
        environ = procfs.environ_of(stat.pid)
        if f"{MARK}={self.mark}".encode() in environ:
            return True
        return (bool(self.pool) and stat.ppid == os.getpid()
                and f"{MARK}={self.pool}".encode() in environ
                and stat.session not in self.others
                and (not self.until or stat.start < self.until))

    async def end(self, grace: float, clock: Clock) -> Ended:
        """SIGTERM to all, the grace, SIGKILL to what is left; returns when nothing is left."""
        return await end(self.near if self._is_below_us() else self.members, grace, clock)

    def _is_below_us(self) -> bool:
        """Whether all of it is below this process: its first one is our child, and what loses its
        parent becomes ours. Then nobody else's processes need be looked at: after each save that
        cost more than all else that the agent does."""
        head = procfs.read_stat(self.pid)
        return (head is not None and head.start == self.start and head.ppid == os.getpid()
                and procfs.has_children_lists() and is_subreaper())


def marked(prefix: str, keep: frozenset[int]) -> list[Stat]:
    """The living processes with a mark that begins so, from a look at all environments."""
    wanted = f"{MARK}={prefix}".encode()
    return [stat for stat in procfs.scan().values()
            if stat.alive and stat.pid not in keep and stat.pid != os.getpid()
            and any(item.startswith(wanted) for item in procfs.environ_of(stat.pid))]


async def end(members: Callable[[], list[Stat]], grace: float, clock: Clock) -> Ended:
    """End what ``members`` gives, and what it gives later, until it gives nothing."""
    first = members()
    known = {(stat.pid, stat.start) for stat in first}
    _send_all(first, signal.SIGTERM)
    # A stopped process gets its SIGTERM only when it goes on.
    _send_all((stat for stat in first if stat.state in "Tt"), signal.SIGCONT)
    deadline = clock.now() + grace
    pause = 0.002
    while clock.now() < deadline:
        if not any(procfs.is_alive(pid, start) for pid, start in known):
            fresh = members()
            if not fresh:
                return Ended(len(known))
            known |= {(stat.pid, stat.start) for stat in fresh}
            _send_all(fresh, signal.SIGTERM)
        await clock.sleep(min(pause, max(deadline - clock.now(), 0.001)))
        pause = min(pause * 1.5, 0.05)
    return await _kill(members, known, clock)


async def _kill(members: Callable[[], list[Stat]], known: set[tuple[int, int]],
                clock: Clock) -> Ended:
    killed: set[int] = set()
    left: list[Stat] = []
    for _ in range(_KILL_ROUNDS):
        left = members()
        if not left:
            break
        known |= {(stat.pid, stat.start) for stat in left}
        killed |= {stat.pid for stat in left}
        _send_all(left, signal.SIGKILL)
        await clock.sleep(0.01)
    return Ended(len(known), tuple(sorted(killed)), tuple(stat.pid for stat in left))


def _send_all(stats: Iterable[Stat], number: signal.Signals) -> None:
    for stat in stats:
        procfs.send(stat.pid, stat.start, number)


@dataclass(slots=True)
class Frozen:
    """Processes that were stopped, and how well."""

    pids: list[tuple[int, int]] = field(default_factory=list)
    restless: list[int] = field(default_factory=list)
    """Those that did not stop in time."""

    def thaw(self) -> None:
        """Let them go on. Safe to call twice."""
        while self.pids:
            procfs.send(*self.pids.pop(), signal.SIGCONT)


async def freeze(families: Iterable[Family], frozen: Frozen) -> None:
    """Stop all processes of these families, and return when they stand still.

    Fills ``frozen`` as it goes, so that the caller can thaw whatever happens. Processes that are
    already stopped are left alone: they are somebody else's to wake.
    """
    waiting = list(families)
    tried = {os.getpid()}
    while True:
        fresh = {stat.pid: stat for family in waiting for stat in family.near()
                 if stat.pid not in tried and stat.state not in "Tt"}
        if not fresh:
            return
        tried |= set(fresh)
        for stat in fresh.values():
            if procfs.send(stat.pid, stat.start, signal.SIGSTOP):
                frozen.pids.append((stat.pid, stat.start))
        # Only a parent that stands still has no new children.
        await _stand_still(fresh.values(), frozen)


async def _stand_still(stats: Iterable[Stat], frozen: Frozen) -> None:
    # Real time, not a Clock: the kernel stops a process in some 20 µs; no decision hangs on it.
    deadline = time.monotonic() + _STOP_LIMIT
    moving = list(stats)
    while moving:
        moving = [stat for stat in moving if _moves(stat)]
        if moving and time.monotonic() > deadline:
            frozen.restless.extend(stat.pid for stat in moving)
            return
        await asyncio.sleep(0)


def _moves(stat: Stat) -> bool:
    # One in an uninterruptible call (D; a parent in vfork, too) stops before it is back in its own
    # code.
    now = procfs.read_stat(stat.pid)
    return now is not None and now.start == stat.start and now.state not in "TtDZXx"
