"""CPU time and memory of everything that a subject started, read from ``/proc``."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MARK = "BENCH_MARK"


@dataclass(frozen=True, slots=True)
class Usage:
    """One process at one moment."""

    pid: int
    command: str
    cpu_s: float
    pss_kb: int
    rss_kb: int


@dataclass
class Family:
    """All living processes that inherited one mark in their environment.

    Parent and group ids don't do: agents start sessions of their own and outlive their parents.
    """

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def environment(self) -> dict[str, str]:
        """What the first process must be started with."""
        return {MARK: self.mark}

    def usage(self, *, memory: bool = False) -> list[Usage]:
        """Every living process; proportional memory is read only on demand, as it is slow."""
        return [usage for name in os.listdir("/proc") if name.isdigit()
                if (usage := _usage(int(name), f"{MARK}={self.mark}".encode(), memory))]

    def cpu_s(self) -> float:
        """CPU seconds of the living ones and of the children that they have waited for."""
        return sum(usage.cpu_s for usage in self.usage())


def _usage(pid: int, mark: bytes, memory: bool) -> Usage | None:
    base = Path("/proc", str(pid))
    try:
        if mark not in (base / "environ").read_bytes().split(b"\0"):
            return None
        fields = (base / "stat").read_text().rpartition(")")[2].split()
        command = (base / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        # utime, stime, and those of children that were waited for: short ones are never seen alive.
        cpu = sum(map(int, fields[11:15])) / TICKS
        pss, rss = _memory(base) if memory else (0, 0)
    except OSError:
        return None
    return Usage(pid, command.strip(), cpu, pss, rss)


def _memory(base: Path) -> tuple[int, int]:
    sizes = {line.split(":")[0]: int(line.split()[1])
             for line in (base / "smaps_rollup").read_text().splitlines()[1:]}
    return sizes["Pss"], sizes["Rss"]
