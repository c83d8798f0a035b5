"""Commands that are run to their end: install steps, ``pre`` and ``post``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import ProgramError
from hyperbox_agent.supervise.family import Family
from hyperbox_agent.supervise.output import Line, Pump
from hyperbox_agent.supervise.process import MARK, Child, Exit, Spawn, open_pipes, spawn

_SERIAL = count(1)
_GRACE = 2.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and its last lines."""

    how: Exit
    last: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Exit status 0."""
        return self.how.status == 0


async def run_step(what: Spawn, emit: Callable[[str, Line], None], clock: Clock,
                   mark: str) -> Ran:
    """Run a command, its output handed on as it comes. Cancelled: all it started is ended.

    Raises ProgramError when it can't be started.
    """
    mark = f"{mark}-s{next(_SERIAL)}"
    ends = open_pipes(with_input=False)
    child: Child = spawn(Spawn(what.argv, {**what.env, MARK: mark}, what.cwd), ends, clock)
    last: deque[str] = deque(maxlen=20)

    def heard(stream: str, line: Line) -> None:
        if not line.partial and line.text.strip():
            last.append(line.text.strip())
        emit(stream, line)

    pumps = [Pump(fd, stream, heard, clock) for stream, fd in ends.ours.streams.items()]
    try:
        how = await child.wait()
        for pump in pumps:
            await pump.drained(0.5)
        return Ran(how, tuple(last))
    finally:
        await Family(child.pid, child.start, mark).end(_GRACE, clock)
        for pump in pumps:
            pump.close()
        child.forget()


def failed(what: str, ran: Ran) -> ProgramError:
    """The error for a command that did not end well."""
    last = f": {ran.last[-1][:300]}" if ran.last else ""
    return ProgramError(f"{what} failed ({ran.how}){last}")
