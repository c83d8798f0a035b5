"""``exec`` on the target: a command beside the program, its streams over one byte channel.

Data towards the target is its input, notes are ``{"rows", "cols"}``, ``{"signal": n}`` and
``{"end": true}`` (end of input). Data towards the session is its output, the side stream its
standard error; the result is ``{"status": n}``, 128 + n after signal n.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.errors import AgentError, LinkLostError
from hyperbox_agent.link.channel import Channel, Data
from hyperbox_agent.link.messages import ExecRequest
from hyperbox_agent.supervise.family import Family
from hyperbox_agent.supervise.host import Host
from hyperbox_agent.supervise.process import (
    MARK,
    Child,
    Ends,
    Pipes,
    Spawn,
    open_pipes,
    open_terminal,
    set_size,
    spawn,
)

GRACE = 2.0
CHUNK = 65536
_serial = 0


async def serve_exec(host: Host, body: Mapping[str, Any], channel: Channel) -> Mapping[str, Any]:
    """Run one command until it ends or its channel does; gives its exit status."""
    asked = ExecRequest.from_json(body)
    mark = _mark()
    env = {**host.environment(), **asked.env, MARK: mark}
    what = Spawn(asked.argv, env, host.folder(asked.cwd), tty=asked.tty,
                 size=(asked.rows, asked.cols))
    clock = SystemClock()
    ends = open_terminal((asked.rows, asked.cols)) if asked.tty else _open_pipes()
    child = spawn(what, ends, clock)
    family = Family(child.pid, child.start, mark)
    feeding = asyncio.ensure_future(_feed(channel, ends.ours, child))
    channel.accept({"pid": child.pid})
    try:
        reading = [asyncio.ensure_future(_read(channel, fd, side=name == "stderr"))
                   for name, fd in ends.ours.streams.items()]
        done = await child.wait()
        await asyncio.wait(reading, timeout=GRACE)
        for task in reading:
            task.cancel()
        await channel.end()
        return {"status": 128 + done.signal if done.signal else done.status or 0}
    finally:
        feeding.cancel()
        if child.exit is None:
            await asyncio.shield(family.end(GRACE, clock))
        ends.ours.close()


def _mark() -> str:
    global _serial
    _serial += 1
    return f"exec-{os.getpid()}-{_serial}"


def _open_pipes() -> Ends:
    """As for a program, but with an input that the session feeds and ends."""
    made = open_pipes(with_input=False)
    os.close(made.theirs[0])
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    return Ends(Pipes(made.ours.streams, stdin=writer), (reader, *made.theirs[1:]))


async def _read(channel: Channel, fd: int, *, side: bool) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            await _ready(loop.add_reader, loop.remove_reader, fd)
            continue
        except OSError:
            return  # EIO: the terminal's last user is gone
        if not data:
            return
        try:
            await channel.send(data, side=side)
        except (LinkLostError, AgentError):
            return


async def _feed(channel: Channel, ours: Pipes, child: Child) -> None:
    """Input, window sizes and signals, until the session says no more."""
    while True:
        item = await channel.receive()
        if item is None:
            return
        if isinstance(item, Data):
            if ours.stdin is not None:
                await _write(ours.stdin, item.data)
        else:
            _obey(item.body, ours, child)


def _obey(note: Mapping[str, Any], ours: Pipes, child: Child) -> None:
    rows, columns, number = note.get("rows"), note.get("cols"), note.get("signal")
    if isinstance(rows, int) and isinstance(columns, int) and ours.stdin is not None:
        set_size(ours.stdin, rows, columns)
    if isinstance(number, int):
        try:
            os.killpg(child.pid, signal.Signals(number))
        except (ProcessLookupError, ValueError):
            pass  # it has just ended, or there is no such signal here
    if note.get("end") and ours.stdin is not None and "stderr" in ours.streams:
        # A terminal's end of input is the user's own ^D; closing it would hang it up.
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nothing, ours.stdin, inheritable=False)
        os.close(nothing)


async def _write(fd: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view):]
        except BlockingIOError:
            await _ready(loop.add_writer, loop.remove_writer, fd)
        except OSError:
            return  # nobody reads it any more


async def _ready(add: Any, remove: Any, fd: int) -> None:
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    add(fd, wake)
    try:
        await woken
    finally:
        remove(fd)
