"""What a dead agent left running: taken over where it serves, ended where it does not."""

from __future__ import annotations

import asyncio
import glob
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import ProgramError
from hyperbox_agent.supervise.family import Family, end, marked
from hyperbox_agent.supervise.instance import Identity, Instance, Sink, log_event
from hyperbox_agent.supervise.output import LineSplitter
from hyperbox_agent.supervise.port import Kept, KeptInstance
from hyperbox_agent.supervise.process import Child, Pipes, reopen_pipes
from hyperbox_agent.supervise.procfs import is_alive, send
from hyperbox_agent.supervise.records import Record, Records
from hyperbox_langpacks.base import Rung

CONTROLS = "c[0-9]*.sock"
"""What the instances' control sockets are called."""
Make = Callable[[Identity, Child, Pipes, str], Instance]


@dataclass(frozen=True, slots=True)
class Adopted:
    """The instance of a dead agent that goes on serving."""

    number: int
    pid: int
    root: str
    rung: Rung
    orphaned: float
    """Seconds that it ran without an agent, as far as is known."""


def serving_record(left: Records, app: dict[str, object]) -> Record | None:
    """The instance to take over; None: none serves, or another program is wanted now."""
    if left.app != app or left.serving is None:
        return None
    return next((one for one in left.instances
                 if one.serial == left.live and is_alive(one.pid, one.start)), None)


def take_all(left: Records, live: Record, kept: Kept | None, make: Make, clock: Clock,
             sink: Sink) -> list[Instance]:
    """The live instance, then those that it had replaced and that may still be answering; nothing
    where the live one can't be taken over."""
    instance = take_over(live, kept, make, clock, sink)
    if instance is None:
        return []
    replaced = (take_over(one, kept, make, clock, sink) for one in left.instances
                if one.serial != live.serial and one.backend is not None
                and is_alive(one.pid, one.start))
    return [instance, *(one for one in replaced if one is not None)]


def wake(family: Family) -> None:
    """Let it go on, where its agent was killed while the program was frozen."""
    for stat in family.members():
        if stat.state == "T":
            send(stat.pid, stat.start, signal.SIGCONT)


def take_over(record: Record, kept: Kept | None, make: Make, clock: Clock,
              sink: Sink) -> Instance | None:
    """The running instance, its output from where the dead agent stopped reading; None: its
    output is lost, and a program that can't write does not live long."""
    held = _held(record, kept)
    pipes = _pipes(record, held)
    if pipes is None:
        return None
    if held is not None and held.log is not None:
        replay(held.log, record.number, sink)
    try:
        child = Child.take(record.pid, clock, start=record.start)
    except ProgramError:
        pipes.close()
        return None
    identity = Identity(record.serial, record.number, Rung(record.rung), record.root,
                        record.mark, record.pool)
    instance = make(identity, child, pipes, record.control)
    if record.backend is not None:
        instance.backend.set_result(record.backend)
    return instance


def _held(record: Record, kept: Kept | None) -> KeptInstance | None:
    if kept is None:
        return None
    return next((one for one in kept.instances
                 if one.number == record.serial and one.pid == record.pid), None)


def _pipes(record: Record, held: KeptInstance | None) -> Pipes | None:
    if held is None or not held.fds:
        return reopen_pipes(record.pid)
    fds = dict(zip(held.info.get("streams", ()), held.fds, strict=False))
    stdin = fds.pop("stdin", None)
    return Pipes(fds, stdin) if fds else None


def close_others(kept: Kept | None, taken: frozenset[int]) -> None:
    """Close the descriptors of the instances that are not among these serials."""
    for one in kept.instances if kept is not None else ():
        if one.number not in taken:
            for fd in one.fds:
                os.close(fd)


def replay(path: str, number: int, sink: Sink) -> None:
    """Hand on what was written while no agent was there, and remove the files."""
    for file in (path + ".1", path):
        try:
            with open(file, "rb") as log:
                splitter = LineSplitter()
                for chunk in iter(lambda: log.read(65536), b""):
                    for line in splitter.feed(chunk):
                        sink({**log_event("stdout", number, line), "late": True})
            last = splitter.end()
            if last is not None:
                sink({**log_event("stdout", number, last), "late": True})
            os.unlink(file)
        except FileNotFoundError:
            continue


async def end_left(left: Records | None, taken: Sequence[Instance], mark: str, run: str,
                   grace: float, clock: Clock) -> None:
    """End everything of a dead agent but the instances that were taken over, also what it had no
    time to write down. ``run``: the folder of its sockets."""
    serials = {one.identity.serial for one in taken}
    keep = frozenset(one.child.pid for one in taken).union(
        *({stat.pid for stat in one.family().members()} for one in taken))
    records = () if left is None else (*left.instances, *left.helpers)
    others = [one for one in records if one.serial not in serials]
    await asyncio.gather(*(
        Family(one.pid, one.start, one.mark, others=keep).end(grace, clock) for one in others))
    await end(lambda: marked(mark + "-", keep), grace, clock)
    controls = {one.control for one in others if one.control}
    controls.update(glob.glob(os.path.join(glob.escape(run), CONTROLS)))
    for path in controls.difference(one.control_path for one in taken):
        _unlink(path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
