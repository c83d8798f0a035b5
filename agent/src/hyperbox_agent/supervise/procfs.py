"""What the kernel tells about processes through ``/proc``. Reads only; every read may be stale."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stat:
    """One process as ``/proc/<pid>/stat`` has it."""

    pid: int
    state: str
    ppid: int
    group: int
    session: int
    start: int
    """In clock ticks since boot: with the pid it names a process for ever."""

    @property
    def alive(self) -> bool:
        """Not a zombie and not being removed."""
        return self.state not in "ZXx"


def parse_stat(text: bytes) -> Stat:
    """Parse one ``stat`` line; the command name in it may hold spaces and parentheses."""
    head, _, tail = text.rpartition(b")")
    rest = tail.split()
    return Stat(pid=int(head.split(b" ", 1)[0]), state=rest[0].decode(), ppid=int(rest[1]),
                group=int(rest[2]), session=int(rest[3]), start=int(rest[19]))


def read_stat(pid: int) -> Stat | None:
    """The process with this pid; None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return parse_stat(file.read(4096))
    except (OSError, ValueError, IndexError):
        # ESRCH comes in the middle of a read when the process goes away.
        return None


def ticks_now() -> int:
    """Now, on the scale of ``Stat.start``."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def is_alive(pid: int, start: int) -> bool:
    """Whether this very process (not a later one with its pid) still runs."""
    found = read_stat(pid)
    return found is not None and found.start == start and found.alive


def scan() -> dict[int, Stat]:
    """Every process of the machine that can be seen: about 40 µs each."""
    found = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {stat.pid: stat for stat in found if stat is not None}


def environ_of(pid: int) -> frozenset[bytes]:
    """``NAME=value`` items that a process was started with; empty where it may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return frozenset(_read_all(file.fileno()).split(b"\0"))
    except OSError:
        return frozenset()


def _read_all(fd: int) -> bytes:
    chunks = []
    while chunk := os.read(fd, 65536):
        chunks.append(chunk)
    return b"".join(chunks)


def children(pid: int) -> list[int]:
    """Children of a process, zombies included, where ``has_children_lists``."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as file:
                found.extend(map(int, file.read(1 << 20).split()))
        except OSError:
            continue
    return found


@functools.cache
def has_children_lists() -> bool:
    """Whether this kernel was built with ``CONFIG_PROC_CHILDREN``."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def descendants(roots: Iterable[int]) -> list[Stat]:
    """The given processes and all below them, parents first, without a scan where possible."""
    if has_children_lists():
        return _walk(roots)
    return descendants_in(scan(), roots)


def _walk(roots: Iterable[int]) -> list[Stat]:
    out: dict[int, Stat] = {}
    waiting = list(roots)
    while waiting:
        pid = waiting.pop(0)
        stat = None if pid in out else read_stat(pid)
        if stat is not None:
            out[pid] = stat
            waiting.extend(children(pid))
    return list(out.values())


def descendants_in(table: dict[int, Stat], roots: Iterable[int]) -> list[Stat]:
    """As ``descendants``, in a table that ``scan`` gave."""
    below: dict[int, list[int]] = {}
    for stat in table.values():
        below.setdefault(stat.ppid, []).append(stat.pid)
    out: dict[int, Stat] = {}
    waiting = list(roots)
    while waiting:
        pid = waiting.pop(0)
        if pid in table and pid not in out:
            out[pid] = table[pid]
            waiting.extend(below.get(pid, ()))
    return list(out.values())


def send(pid: int, start: int, number: signal.Signals) -> bool:
    """Signal this very process. False: it is gone, or it is not ours to signal.

    The pidfd holds the pid while its start time is compared, so no later process is hit.
    """
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_alive(pid, start):
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


def oom_kills() -> int | None:
    """How many processes the kernel has killed for memory in our cgroup; None: not counted."""
    for path, key in _oom_files():
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                for line in file:
                    name, _, count = line.partition(" ")
                    if name == key:
                        return int(count)
        except (OSError, ValueError):
            continue
    return None


@functools.lru_cache(maxsize=1)
def _oom_files() -> list[tuple[str, str]]:
    """Where it is counted; kept, for a daemon of ours does not move between cgroups."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    out = []
    for number, controllers, path in lines:
        if number == "0":
            out.append((f"/sys/fs/cgroup{path}/memory.events", "oom_kill"))
        elif "memory" in controllers.split(","):
            out.append((f"/sys/fs/cgroup/memory{path}/memory.oom_control", "oom_kill"))
    return out
