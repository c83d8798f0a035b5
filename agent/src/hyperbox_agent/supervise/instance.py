"""One running version of the program: its process, output, reports and address."""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.supervise import procfs
from hyperbox_agent.supervise.control import Control
from hyperbox_agent.supervise.family import Ended, Family
from hyperbox_agent.supervise.limits import first_of
from hyperbox_agent.supervise.output import Line, Pump, Room
from hyperbox_agent.supervise.probe import Address
from hyperbox_agent.supervise.process import Child, Exit, Pipes
from hyperbox_langpacks.base import Rung

Sink = Callable[[Mapping[str, Any]], None]

DRAIN_AFTER_EXIT = 0.5
"""Seconds to wait for the end of the output when a grandchild holds the pipe open."""
_ERRORS = 400


@dataclass(frozen=True, slots=True)
class Identity:
    """What names an instance."""

    serial: int
    """Its own for ever: a restart of the same version has the same number and another serial."""
    number: int
    rung: Rung
    root: str
    mark: str
    """Value of ``HYPERBOX_INSTANCE`` in it and below it."""
    pool: str = ""
    """Mark of the prepared parent, for one that was forked."""


@dataclass(slots=True)
class Learned:
    """What the shim told of one instance."""

    modules: dict[str, None] = field(default_factory=dict)
    """Names in the order in which they were first imported."""
    files: set[str] = field(default_factory=set)
    reports: int = 0


class Instance:
    """Made when its process exists, its ``control`` before that: what a program reports in its
    first moments is not said twice. ``end`` leaves nothing of it behind."""

    def __init__(self, identity: Identity, child: Child, pipes: Pipes, control: Control,
                 clock: Clock, sink: Sink, *, port: int | None = None, ready: str | None = None,
                 room: Room | None = None,
                 on_report: Callable[[Instance, Mapping[str, Any]], None] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.identity = identity
        self.child = child
        self.born = clock.now()
        self.born_ticks = procfs.ticks_now()
        """When it began to be this version; a forked process may be older."""
        self.oom_before = procfs.oom_kills()
        self.learned = Learned()
        self.was_adopted = False
        """Another agent heard what its shim told first, and a shim tells nothing twice."""
        self.was_given_port = False
        """Its private port was chosen by us, not mapped by its shim."""
        self.backend: asyncio.Future[Address] = loop.create_future()
        """Where it answers, once that is known."""
        self.ready_line: asyncio.Future[str] = loop.create_future()
        self._stdin = pipes.stdin
        self._clock = clock
        self._sink = sink
        self._port = port
        self._ready = re.compile(ready) if ready else None
        self._on_report = on_report
        self._errors: deque[str] = deque(maxlen=_ERRORS)
        self._only_stream = len(pipes.streams) == 1
        self._exit: asyncio.Task[Exit] | None = None
        self._control = control
        control.on_report = self._report
        self._pumps = [Pump(fd, stream, self._line, clock, room=room)
                       for stream, fd in pipes.streams.items()]

    @property
    def number(self) -> int:
        """The generation that it runs."""
        return self.identity.number

    @property
    def root(self) -> str:
        """The tree that it runs from."""
        return self.identity.root

    @property
    def loaded(self) -> frozenset[str]:
        """The files that it holds, as far as that is known for all of them; else none."""
        return frozenset() if self.was_adopted else frozenset(self.learned.files)

    @property
    def has_told(self) -> bool:
        """Whether ``loaded`` is what it has loaded, be it nothing."""
        return self.learned.reports > 0 and not self.was_adopted

    @property
    def control_path(self) -> str:
        """Where its shim reports."""
        return self._control.path

    @property
    def descriptors(self) -> dict[str, int]:
        """Our ends of its streams that are still open, by name: what the next agent would need."""
        found = {pump.stream: pump.fd for pump in self._pumps if pump.fd >= 0}
        if self._stdin is not None:
            found["stdin"] = self._stdin
        return found

    async def feed(self, data: bytes) -> None:
        """Write to its input; waits while it does not read."""
        rest = memoryview(data)
        while rest and self._stdin is not None and self.child.exit is None:
            try:
                rest = rest[os.write(self._stdin, rest):]
            except BlockingIOError:
                await first_of(self._clock, 0.05, self.child.wait())
            except OSError:
                return

    def family(self, others: frozenset[int] = frozenset(), until: int = 0) -> Family:
        """Names its processes; see ``Family`` for the two arguments."""
        return Family(self.child.pid, self.child.start, self.identity.mark,
                      self.identity.pool, others - {self.child.pid}, until)

    async def ended(self) -> Exit:
        """Return when it has ended and all it wrote has been handed on."""
        if self._exit is None:
            self._exit = asyncio.get_running_loop().create_task(self._wait_for_end())
        return await asyncio.shield(self._exit)

    async def _wait_for_end(self) -> Exit:
        how = await self.child.wait()
        await asyncio.gather(*(pump.drained(DRAIN_AFTER_EXIT) for pump in self._pumps))
        return how

    def last_errors(self) -> Sequence[str]:
        """The last lines of its stderr (of its terminal, where it has one)."""
        return tuple(self._errors)

    async def end(self, grace: float, *, others: frozenset[int] = frozenset(),
                  until: int = 0) -> Ended:
        """End all its processes, SIGTERM first; its output has been handed on to the last byte."""
        try:
            return await self.family(others, until).end(grace, self._clock)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of its output, reports and process handle; its processes are left alone."""
        stdin, self._stdin = self._stdin, None
        if stdin is not None:
            os.close(stdin)
        for pump in self._pumps:
            pump.close()
        self._control.close()
        self.child.forget()
        if self._exit is not None:
            self._exit.cancel()
        for future in (self.backend, self.ready_line):
            future.cancel()

    # -- what it says ---------------------------------------------------------------------------

    def _line(self, stream: str, line: Line) -> None:
        if not line.partial and (stream == "stderr" or self._only_stream):
            self._errors.append(line.text)
        if self._ready is not None and not self.ready_line.done() and self._ready.search(line.text):
            self.ready_line.set_result(line.text)
        self._sink(log_event(stream, self.number, line))

    def _report(self, report: Mapping[str, Any]) -> None:
        event = report["event"]
        if event == "listening":
            self._listening(report)
        elif event == "modules":
            self.learned.reports += 1
            self.learned.modules.update(dict.fromkeys(texts(report.get("names"))))
            self.learned.files.update(texts(report.get("files")))
        if self._on_report is not None:
            self._on_report(self, report)

    def _listening(self, report: Mapping[str, Any]) -> None:
        port, public = report.get("port"), report.get("public")
        if isinstance(port, int) and public == self._port and not self.backend.done():
            self.backend.set_result(("127.0.0.1", port))


def log_event(stream: str, number: int, line: Line) -> dict[str, Any]:
    """A line of output as an event."""
    event: dict[str, Any] = {"event": "log", "stream": stream, "number": number, "text": line.text}
    if line.partial:
        event["partial"] = True
    if line.cut:
        event["cut"] = True
    return event


def texts(value: Any) -> list[str]:
    """The strings of a list that a shim sent."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
