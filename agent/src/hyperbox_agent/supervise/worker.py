"""The agent's end of a pack's worker: requests with time limits, descriptors by SCM_RIGHTS."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import ProgramError
from hyperbox_agent.supervise.family import Family
from hyperbox_agent.supervise.limits import first_of
from hyperbox_agent.supervise.output import Line, Pump
from hyperbox_agent.supervise.process import MARK, Child, Exit, Spawn, open_pipes, spawn
from hyperbox_langpacks.base import WorkerSpec

MESSAGE_LIMIT = 8 << 20
_LENGTH = struct.Struct(">I")
HELLO_TIMEOUT = 20.0


class WorkerError(ProgramError):
    """The worker is gone, does not answer, or says no."""


class WorkerGoneError(WorkerError):
    """It ended, or was ended."""


class Worker:
    """One worker process. Everything raises WorkerError once it is gone."""

    def __init__(self, child: Child, sock: socket.socket, mark: str, clock: Clock) -> None:
        self.child = child
        self.mark = mark
        self.python = ""
        self._clock = clock
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next = 1
        self._turn = asyncio.Lock()
        self._last: deque[str] = deque(maxlen=50)
        self._pumps: list[Pump] = []
        self._gone: str | None = None
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def start(cls, spec: WorkerSpec, env: Mapping[str, str], cwd: str, mark: str,
                    clock: Clock, *, timeout: float = HELLO_TIMEOUT) -> Worker:
        """Start one and hear its greeting. Raises WorkerError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        ends = open_pipes(with_input=False)
        whole = {**env, **spec.env, "HYPERBOX_WORKER_FD": str(theirs.fileno()), MARK: mark}
        try:
            child = spawn(Spawn(spec.argv, whole, cwd, pass_fds=(theirs.fileno(),)), ends, clock)
        except ProgramError as error:
            ours.close()
            raise WorkerError(f"the worker could not be started: {error.message}") from error
        finally:
            theirs.close()
        worker = cls(child, ours, mark, clock)
        worker._pumps = [Pump(fd, stream, worker._heard, clock)
                         for stream, fd in ends.ours.streams.items()]
        try:
            hello = await worker.request("hello", {}, timeout=timeout)
        except BaseException:
            await worker.close()
            raise
        worker.python = str(hello.get("python", ""))
        return worker

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._gone is None and self.child.exit is None

    async def request(self, op: str, body: Mapping[str, Any], fds: Sequence[int] = (), *,
                      timeout: float) -> dict[str, Any]:
        """Ask, and give its answer. Raises WorkerError: gone, no answer in time, ``ok`` false."""
        if not self.alive:
            raise WorkerGoneError(self._gone_words())
        number, self._next = self._next, self._next + 1
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[number] = answer
        try:
            await self._send({"op": op, "id": number, **body}, fds)
            if not await first_of(self._clock, timeout, answer):
                raise WorkerError(f"the worker did not answer {op!r} in {timeout:g} s")
            reply = answer.result()
        finally:
            self._waiting.pop(number, None)
        if not reply.get("ok"):
            raise WorkerError(str(reply.get("error") or f"the worker refused {op!r}"))
        return reply

    async def close(self, grace: float = 1.0) -> None:
        """End it and what is below it; what it forked for us lives on. Safe to call twice."""
        self._lose("it was closed")
        await Family(self.child.pid, self.child.start, "").end(grace, self._clock)
        for pump in self._pumps:
            pump.close()
        self.child.forget()

    async def ended(self) -> Exit:
        """Return when its process has ended."""
        return await self.child.wait()

    async def _send(self, message: Mapping[str, Any], fds: Sequence[int]) -> None:
        body = json.dumps(message, separators=(",", ":")).encode()
        data = _LENGTH.pack(len(body)) + body
        async with self._turn:
            try:
                if fds:
                    sent = socket.send_fds(self._socket, [data], list(fds))
                    data = data[sent:]
                await self._loop.sock_sendall(self._socket, data)
            except OSError as error:
                self._lose(f"it can't be reached: {error}")
                raise WorkerGoneError(self._gone_words()) from error

    def _readable(self) -> None:
        try:
            data = self._socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lose("it hung up")
            return
        self._data += data
        while (message := self._next_message()) is not None:
            self._take(message)

    def _next_message(self) -> bytes | None:
        if len(self._data) < 4:
            return None
        (length,) = _LENGTH.unpack_from(self._data)
        if length > MESSAGE_LIMIT:
            self._lose(f"it sent a message of {length} bytes")
            return None
        if len(self._data) < 4 + length:
            return None
        message = bytes(self._data[4:4 + length])
        del self._data[:4 + length]
        return message

    def _take(self, message: bytes) -> None:
        try:
            reply = json.loads(message)
        except ValueError:
            self._lose("it sent what is no JSON")
            return
        answer = self._waiting.get(reply.get("id", 0)) if isinstance(reply, dict) else None
        if answer is not None and not answer.done():
            answer.set_result(reply)

    def _lose(self, why: str) -> None:
        if self._gone is not None:
            return
        self._gone = why
        self._data.clear()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(WorkerGoneError(self._gone_words()))

    def _gone_words(self) -> str:
        last = next((line for line in reversed(self._last) if line.strip()), "")
        how = f" ({self.child.exit})" if self.child.exit is not None else ""
        return f"the worker is gone: {self._gone or 'it ended'}{how}" + (
            f"; last words: {last}" if last else "")

    def _heard(self, stream: str, line: Line) -> None:
        if not line.partial:
            self._last.append(line.text)


# ---------------------------------------------------------------------------------- priority


_POLITE = 5
"""A third of the others' share: at 15 a busy machine took 7 s over 0.4 s of imports, and the next
save was cold."""


def lower_priority(pid: int) -> None:
    """Let everybody else go first. What is done here can be undone without any right.

    ``nice`` can't be taken back by a plain user, and a parent's would be its forks' for ever; the
    nice value of its session's autogroup can, and each fork has a session of its own.
    """
    _set_autogroup(pid, _POLITE)
    _set_policy(pid, os.SCHED_BATCH)


def restore_priority(pid: int) -> None:
    """The inverse of ``lower_priority``."""
    _set_autogroup(pid, 0)
    _set_policy(pid, os.SCHED_OTHER)


def _set_autogroup(pid: int, nice: int) -> None:
    try:
        with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as file:
            file.write(str(nice))
    except OSError:
        # No autogroups in this kernel, or the process is gone: only politeness is lost.
        return


def _set_policy(pid: int, policy: int) -> None:
    try:
        os.sched_setscheduler(pid, policy, os.sched_param(0))
    except OSError:
        return
