"""A clock that tests move, and programs that are really run."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import os
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.supervisor import Reloaded, Supervisor
from hyperbox_langpacks.base import Command, Detection, Rung, RungChoice
from hyperbox_langpacks.view import FolderView

BASE_APP = """\
import http.server, os, ver
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        b = ver.V.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(b)))
        self.end_headers()
        self.wfile.write(b)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
"""


class FakeClock:
    """Stands still until ``advance``; sleepers wake in the order of their time."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        until = self._now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, at)
            if not future.done():
                future.set_result(None)
            await self.settle()
        self._now = until

    @staticmethod
    async def settle() -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
def fake_clock() -> FakeClock:
    return FakeClock()


class Program:
    """A project in a folder, and what supervises it."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self.home = home
        self.view = FolderView(str(root))
        self.port = free_port()
        self.events: list[Mapping[str, Any]] = []
        self.supervisors: list[Supervisor] = []

    def write(self, **files: str) -> None:
        """``app="..."`` writes ``app.py``."""
        for name, text in files.items():
            (self.root / f"{name}.py").write_text(text)

    def supervisor(self, *, pack: Any = None, found: Detection | None = None, clock: Any = None,
                   **config: Any) -> Supervisor:
        values: dict[str, Any] = {"command": (sys.executable, "app.py"), "port": self.port,
                                  "grace": 10.0, "drain": 0.5, "start_timeout": 60.0, **config}
        app = AppConfig(**values)
        argv = app.command if isinstance(app.command, tuple) else ("/bin/sh", "-c", app.command)
        made = Supervisor(app, pack, found or Detection("none", Command(argv), "a test", 1.0),
                          self.view, str(self.home),
                          clock=clock or SystemClock(), sink=self.events.append,
                          environ={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1",
                                   **{key: value for key, value in os.environ.items()
                                      if key.startswith("PYTEST_RUN")}})
        self.supervisors.append(made)
        return made

    async def reload(self, supervisor: Supervisor, number: int, rung: Rung = Rung.COLD, *,
                     root: Path | None = None,
                     permit: Callable[[], Awaitable[bool]] | None = None,
                     taken_back: Callable[[], Awaitable[None]] | None = None,
                     keep_old: bool = False) -> Reloaded:
        return await supervisor.reload(number, RungChoice(rung, "a test"),
                                       root=str(root or self.root), permit=permit or _yes,
                                       taken_back=taken_back, keep_old=keep_old)

    async def ask(self, path: str = "/") -> str:
        """The body of one complete answer."""
        return await ask(self.port, path)

    def texts(self, stream: str | None = None, number: int | None = None) -> list[str]:
        return [event["text"] for event in self.events
                if event["event"] == "log" and not event.get("partial")
                and stream in (None, event["stream"]) and number in (None, event["number"])]

    def states(self) -> list[str]:
        return [event["state"] for event in self.events if event["event"] == "state"]

    def marked(self) -> list[int]:
        """Living processes that carry a mark of this home's instances."""
        return marked(self.supervisors[-1]._service._mark)


async def _yes() -> bool:
    return True


def marked(mark: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                environ = Path(f"/proc/{name}/environ").read_bytes()
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
                if f"HYPERBOX_INSTANCE={mark}".encode() in environ and state not in "ZX":
                    found.append(int(name))
    return found


async def ask(port: int, path: str = "/") -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        data = await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1."), data
    return body.decode()


def free_port() -> int:
    """Below the ports that the kernel hands out by itself, so nobody gets it by accident."""
    while True:
        port = random.randrange(12_000, 32_000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Poll with a deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.01)


@pytest.fixture
async def program(tmp_path: Path, own_home: Path) -> AsyncIterator[Program]:
    root = tmp_path / "project"
    root.mkdir()
    made = Program(root, tmp_path / "home")
    made.write(app=BASE_APP, ver='V = "v1"\n')
    yield made
    for supervisor in made.supervisors:
        await supervisor.stop(fast=True)
    assert not made.supervisors or not made.marked()


@pytest.fixture
def helpers() -> Any:
    """The functions of this file, for tests (which can't import it)."""

    class Helpers:
        until = staticmethod(until)
        ask = staticmethod(ask)
        marked = staticmethod(marked)
        free_port = staticmethod(free_port)
        base_app = BASE_APP

    return Helpers


class FastClock:
    """Real time, twenty times as fast: pauses of a real program's life without waiting for them."""

    SPEED = 20.0

    def now(self) -> float:
        return time.monotonic() * self.SPEED

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.SPEED)


@pytest.fixture
def fast_clock() -> FastClock:
    return FastClock()
