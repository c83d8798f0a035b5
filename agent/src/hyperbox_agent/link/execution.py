"""``exec`` on the target: a command beside the program, its streams over one byte channel.

Data towards the target is its input, notes are ``{"rows", "cols"}``, ``{"signal": n}`` and
``{"end": true}`` (end of input). Data towards the session is its output, the side stream its
standard error; the result is ``{"status": n}``, 128 + n after signal n.

What a command leaves running ends with it, before its status is told: it bears the home's mark, so
the stop of the agent, or the next agent, would end it as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.errors import AgentError, LinkLostError
from hyperbox_agent.link.channel import Channel, Data
from hyperbox_agent.link.messages import ExecRequest
from hyperbox_agent.supervise.family import Family
from hyperbox_agent.supervise.host import Host
from hyperbox_agent.supervise.mend import mark_of
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
    mark = _mark(host.home)
    env = {**host.environment(), **asked.env, MARK: mark}
    what = Spawn(asked.argv, env, host.folder(asked.cwd), tty=asked.tty,
                 size=(asked.rows, asked.cols))
    clock = SystemClock()
    ends = open_terminal((asked.rows, asked.cols)) if asked.tty else _open_pipes()
    child = spawn(what, ends, clock)
    family = Family(child.pid, child.start, mark)
    outputs, stdin = _Outputs(channel, ends.ours), _Input(channel, ends.ours)
    obeying = asyncio.ensure_future(_obey_all(channel, ends.ours, child, stdin))
    channel.accept({"pid": child.pid})
    swept = False
    try:
        done = await child.wait()
        await family.end(GRACE, clock)
        swept = True
        await outputs.rest()
        await channel.end()
        return {"status": 128 + done.signal if done.signal else done.status or 0}
    finally:
        try:
            await _cancel(obeying, stdin.task, *outputs.tasks)
            if not swept:
                await asyncio.shield(family.end(GRACE, clock))
        finally:
            # Nothing waits at a descriptor any more: its number may be given to another.
            ends.ours.close()


def _mark(home: str) -> str:
    """Begins as all marks of this home do: whoever ends what is left of it finds this, too."""
    global _serial
    _serial += 1
    return f"{mark_of(home)}-exec-{os.getpid()}-{_serial}"


def _open_pipes() -> Ends:
    """As for a program, but with an input that the session feeds and ends."""
    made = open_pipes(with_input=False)
    os.close(made.theirs[0])
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    return Ends(Pipes(made.ours.streams, stdin=writer), (reader, *made.theirs[1:]))


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Outputs:
    """What the command writes, on its way to the session."""

    def __init__(self, channel: Channel, ours: Pipes) -> None:
        self._channel = channel
        self._moves = 0
        self._sending = 0
        self.tasks = [asyncio.ensure_future(self._carry(fd, side=name == "stderr"))
                      for name, fd in ours.streams.items()]

    async def rest(self) -> None:
        """Return when all of it is on its way, however slowly it is read over there.

        Who got away from us and holds the other end is not waited for: some silence ends it.
        """
        while pending := [task for task in self.tasks if not task.done()]:
            before = self._moves
            await asyncio.wait(pending, timeout=GRACE)
            if self._moves == before and not self._sending:
                return

    async def _carry(self, fd: int, *, side: bool) -> None:
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
            self._moves += 1
            self._sending += 1
            try:
                await self._channel.send(data, side=side)
            except (LinkLostError, AgentError):
                return
            finally:
                self._sending -= 1


class _Input:
    """Bytes for standard input, written as fast as the command takes them and no faster.

    No more than the window of the channel waits here: the session may send what was written.
    """

    def __init__(self, channel: Channel, ours: Pipes) -> None:
        self._channel = channel
        self._fd = ours.stdin
        self._is_terminal = "stderr" not in ours.streams
        self._waiting: deque[bytes | None] = deque()
        self._more = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    def put(self, data: bytes | None) -> None:
        """Bytes, or None: their end."""
        self._waiting.append(data)
        self._more.set()

    async def _run(self) -> None:
        while self._fd is not None:
            while self._waiting:
                data = self._waiting.popleft()
                if data is not None:
                    await _write(self._fd, data)
                    self._channel.consumed(len(data))
                elif not self._is_terminal:
                    # A terminal's end of input is the user's own ^D; closing it would hang it up.
                    _end_of_input(self._fd)
            self._more.clear()
            await self._more.wait()


async def _obey_all(channel: Channel, ours: Pipes, child: Child, stdin: _Input) -> None:
    """Take what the session sends until it says no more. Window sizes and signals are obeyed at
    once, also while the command does not read its input."""
    with contextlib.suppress(AgentError):  # the channel is over: so is the command
        while (item := await channel.receive(owed=True)) is not None:
            if isinstance(item, Data):
                stdin.put(item.data)
            elif item.body.get("end"):
                stdin.put(None)
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


def _end_of_input(fd: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nothing, fd, inheritable=False)
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
