"""The real command with a session that a test plays: everything a person sees, without an agent.

Run as a program in the place of ``hyperbox``. What the session does comes as JSON lines through
the fifo that ``DOUBLE_CONTROL`` names; what was asked of it is written to ``DOUBLE_ASKED``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import sys
import termios
from types import ModuleType
from typing import Any

from hyperbox_agent.errors import AgentError
from hyperbox_tui.cli import main as command


def asked(what: str, **more: Any) -> None:
    if path := os.environ.get("DOUBLE_ASKED"):
        with open(path, "a") as file:
            file.write(json.dumps({"asked": what, **more}) + "\n")


class LocalCommand:
    """``exec``, on this machine."""

    def __init__(self) -> None:
        self.outputs: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self.open = 0
        self.stdin = -1
        self.terminal = -1

    @classmethod
    async def start(cls, request: Any) -> LocalCommand:
        self = cls()
        env = {**os.environ, **request.env}
        if request.tty:
            master, slave = pty.openpty()
            self.terminal = self.stdin = master
            await self.resize(request.rows, request.columns)
            self.process = await asyncio.create_subprocess_exec(
                "setsid", "-c", *request.argv, stdin=slave, stdout=slave, stderr=slave, env=env)
            os.close(slave)
            self._read_from(master, 1)
            return self
        ends = [os.pipe(), os.pipe()]
        stdin = os.pipe() if request.stdin else (os.open(os.devnull, os.O_RDONLY), -1)
        self.process = await asyncio.create_subprocess_exec(
            *request.argv, stdin=stdin[0], stdout=ends[0][1], stderr=ends[1][1], env=env)
        os.close(stdin[0])
        self.stdin = stdin[1]
        for number, (reader, writer) in enumerate(ends, 1):
            os.close(writer)
            self._read_from(reader, number)
        return self

    def _read_from(self, descriptor: int, stream: int) -> None:
        self.open += 1
        loop = asyncio.get_running_loop()

        def ready() -> None:
            try:
                data = os.read(descriptor, 65536)
            except OSError:
                data = b""
            if data:
                self.outputs.put_nowait((stream, data))
                return
            loop.remove_reader(descriptor)
            self.open -= 1
            if not self.open:
                self.outputs.put_nowait(None)

        loop.add_reader(descriptor, ready)

    async def read(self) -> tuple[int, bytes] | None:
        return await self.outputs.get()

    async def write(self, data: bytes) -> None:
        if self.stdin < 0:
            return
        if data:
            await asyncio.to_thread(self._write_all, data)
        elif self.terminal < 0:
            os.close(self.stdin)
            self.stdin = -1

    def _write_all(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self.stdin, data):]

    async def resize(self, rows: int, columns: int) -> None:
        asked("resize", rows=rows, columns=columns)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    async def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def status(self) -> int:
        code = await self.process.wait()
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asked("exec closed")


class Session:
    def __init__(self, config: Any, on_event: Any) -> None:
        self.config_value = config
        self.tell = on_event
        self.reset()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def reset(self) -> None:
        """As it was when it was opened."""
        self.target = {"name": self.config_value.target.name, "kind": "process", "state": "live",
                       "number": 1, "rung": "cold", "url": "http://127.0.0.1:8000", "pid": 4242,
                       "pending": 0, "error": None}
        self.answers: dict[str, Any] = {}

    def event(self, **fields: Any) -> None:
        self.tell({"project": self.config_value.project.name,
                   "target": self.config_value.target.name, **fields})

    async def open(self) -> None:
        self.event(event="state", state="starting", number=None, url=None, pid=None, error=None)
        if os.environ.get("DOUBLE_OPEN") == "fail":
            raise AgentError("the target is on fire", file="app.py", line=3, hint="pour water")
        if os.environ.get("DOUBLE_OPEN") == "hang":
            asked("opening")
            try:
                await asyncio.Event().wait()
            finally:
                asked("open cancelled")
        self.event(event="generation", number=1, verdict="committed", rung="cold", why="first",
                   files=3, bytes=0, ms={"total": 321.0}, error=None, serving=1, first=True,
                   paths=["app.py", "a.py", "b.py"])
        self.event(event="state", state="live", number=1, url="http://127.0.0.1:8000", pid=4242,
                   error=None)
        if path := os.environ.get("DOUBLE_CONTROL"):
            self.control = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            self.rest = b""
            asyncio.get_running_loop().add_reader(self.control, self.controlled)

    def controlled(self) -> None:
        *lines, self.rest = (self.rest + os.read(self.control, 1 << 20)).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "reset" in order:
                self.reset()
                asked("reset")
            if "emit" in order:
                self.event(**order["emit"])
                if "times" in order:
                    self.flood = asyncio.ensure_future(self.emit_many(**order))
            if "target" in order:
                self.target |= order["target"]
            if "answer" in order:
                self.answers |= order["answer"]
            if "die" in order:
                self.over.set_exception(AgentError(order["die"], hint="look at it"))

    async def emit_many(self, emit: dict[str, Any], times: int) -> None:
        for number in range(times):
            self.event(**emit)
            if not number % 500:
                await asyncio.sleep(0)
        asked("flood ended")

    def status(self) -> dict[str, Any]:
        return {"name": self.config_value.project.name, "path": self.config_value.project.root,
                "targets": [self.target]}

    def config(self) -> dict[str, Any]:
        return {}

    def history(self, limit: int) -> list[dict[str, Any]]:
        return []

    async def _answer(self, verb: str, default: Any) -> Any:
        asked(verb)
        answer = self.answers.get(verb, default)
        if answer == "hang":
            await asyncio.Event().wait()
        if isinstance(answer, dict) and "raise" in answer:
            raise AgentError(answer["raise"], hint=answer.get("hint"))
        return answer

    async def flush(self, timeout: float) -> Any:
        return await self._answer("flush", {"ms": 1.0, "targets": [
            {"name": "process", "number": 1, "verdict": "committed", "serving": 1,
             "error": None}]})

    def _generation(self, **more: Any) -> dict[str, Any]:
        return {"event": "generation", "number": 1, "verdict": "committed", "rung": "warm",
                "why": "asked", "files": 0, "bytes": 0, "ms": {"total": 20.0}, "error": None,
                **more}

    async def rollback(self, number: int | None) -> Any:
        asked("rollback", number=number)
        return await self._answer("rollback", self._generation(number=number or 0))

    async def restart(self, rung: str | None) -> Any:
        return await self._answer("restart", self._generation(rung=rung or "warm"))

    async def pause(self) -> Any:
        return await self._answer("pause", self.status())

    async def resume(self) -> Any:
        return await self._answer("resume", self.status())

    async def exec(self, request: Any) -> LocalCommand:
        return await LocalCommand.start(request)

    async def feed(self, data: bytes) -> None:
        asked("feed", text=data.decode())

    async def wait(self) -> None:
        await asyncio.shield(self.over)

    async def stop(self, *, fast: bool = False) -> None:
        asked("stop", fast=fast)
        if self.answers.get("stop") == "hang" and not fast:
            await asyncio.sleep(60)
        if self.answers.get("stop") == "stuck":
            await asyncio.sleep(60)

    async def detach(self) -> None:
        asked("detach")


async def open_session(config: Any, *, on_event: Any, clock: Any) -> Session:
    session = Session(config, on_event)
    await session.open()
    return session


def down(project: Any, *, timeout: float) -> bool:
    asked("down", timeout=timeout)
    return os.environ.get("DOUBLE_DOWN") == "something"


# In the place of the real module, whose import alone is half a second of a busy machine.
room = ModuleType("hyperbox_devcontainer.session")
room.__dict__.update(open_session=open_session, down=down, Session=Session)
sys.modules[room.__name__] = room

if __name__ == "__main__":
    sys.exit(command.main())
