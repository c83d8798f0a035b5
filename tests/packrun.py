"""Runs the shim and the worker as the agent would: real processes, a real control socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pythons import all_pythons


def _behind_shim(path: str) -> str:
    """The interpreter itself: pyenv's stand-ins change the environment before they start it."""
    if "/shims/" not in path:
        return path
    return subprocess.check_output([path, "-c", "import sys; print(sys.executable)"],
                                   text=True).strip()


_ALL = {version: _behind_shim(path) for version, path in all_pythons().items()
        if version >= (3, 8)}
_SOME = sorted({min(_ALL), sys.version_info[:2], max(_ALL)} & set(_ALL))
every_python = pytest.mark.parametrize(
    "python", [pytest.param(path, id="{}.{}".format(*version),
                            marks=() if version in _SOME else pytest.mark.slow)
               for version, path in sorted(_ALL.items())])
"""The oldest that we support, our own and the newest; those between are for the slow run."""
own_python_first = pytest.mark.parametrize(
    "python", [pytest.param(path, id="{}.{}".format(*version),
                            marks=() if version == sys.version_info[:2] else pytest.mark.slow)
               for version, path in sorted(_ALL.items())])
"""For long tables: our own Python; the others are for the slow run."""

PATIENCE = 60.0
PUBLIC = 8123


def wait_for(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first true answer of ``what``; fails after a deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = what()
        if answer:
            return answer
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


_CAUGHT_UP = b"caught up\n"


class Control:
    """The agent's end of the control socket: collects what the shim reports."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._caught_up = threading.Event()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    if line == _CAUGHT_UP:
                        self._caught_up.set()
                    else:
                        self.events.append(json.loads(line))

    def catch_up(self) -> None:
        """Return when all is read that was sent by processes that have ended.

        Connections are served one after the other in the order in which they were made, so what a
        new one says is read last.
        """
        self._caught_up.clear()
        with socket.socket(socket.AF_UNIX) as ours:
            ours.connect(self.path)
            ours.sendall(_CAUGHT_UP)
        assert self._caught_up.wait(PATIENCE), "something that was started still reports"

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event["event"] == name]

    def files(self) -> set[str]:
        return {path for event in self.named("modules") for path in event["files"]}

    def modules(self) -> set[str]:
        return {name for event in self.named("modules") for name in event["names"]}

    def port(self) -> int:
        """The private port, as soon as it is told."""
        event = wait_for(lambda: next(iter(self.named("listening")), None))
        assert event["public"] == PUBLIC
        return int(event["port"])


def surroundings() -> dict[str, str]:
    """Our own environment but for what pytest changes within a test."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@dataclass
class Bench:
    """A project folder and what belongs to it."""

    root: Path
    code: Path
    control: Control
    shim: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def environ(self, public: int | None = PUBLIC, **more: str) -> dict[str, str]:
        env = {**surroundings(), "PYTHONPATH": self.shim, "PYTHONUNBUFFERED": "1",
               "HYPERBOX_CONTROL": self.control.path, "HYPERBOX_ROOT": str(self.root),
               "HYPERBOX_CODE": str(self.code), "HYPERBOX_NUMBER": "1", **more}
        if public is not None:
            env["HYPERBOX_PUBLIC_PORT"] = str(public)
        return env

    def start(self, *argv: str, public: int | None = PUBLIC, stdout: Any = subprocess.PIPE,
              **more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, cwd=self.root, env=self.environ(public, **more),
                                   stdin=subprocess.DEVNULL, stdout=stdout,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        self.processes.append(process)
        return process

    def run(self, *argv: str, public: int | None = PUBLIC, **more: str) -> tuple[int, str]:
        """Run to the end: exit status and what it wrote."""
        process = self.start(*argv, public=public, **more)
        out, _ = process.communicate(timeout=PATIENCE)
        self.control.catch_up()
        return process.returncode, out.decode(errors="replace")

    def end(self) -> None:
        for one in self.sockets:
            one.close()
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextlib.contextmanager
def bench(folder: Path, socket_dir: str) -> Iterator[Bench]:
    """A project in ``folder``, with its control socket in a folder with a short path."""
    from hyperbox_langpacks.python.files import shim_folder

    root, code = folder / "project", folder / "code"
    root.mkdir()
    code.mkdir()
    control = Control(os.path.join(socket_dir, f"c{time.monotonic_ns()}"))
    made = Bench(root, code, control, shim_folder(str(code)))
    try:
        yield made
    finally:
        made.end()
        control.close()


def get(port: int, path: str = "/") -> tuple[int, str]:
    """One request to a port of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


# ------------------------------------------------------------------------------------ worker


class WorkerEnd:
    """The agent's end of a worker."""

    def __init__(self, made: Bench, python: str, *options: str, entries: Sequence[str] = (),
                 **more: str) -> None:
        ours, theirs = socket.socketpair()
        main = os.path.join(made.shim, "worker.py")
        spec = {"root": str(made.root), "code": str(made.code), "options": list(options),
                "main": main, "path": [str(made.root), *entries]}
        env = {**surroundings(), "PYTHONPATH": made.shim, "PYTHONUNBUFFERED": "1",
               "HYPERBOX_WORKER_SPEC": json.dumps(spec),
               "HYPERBOX_WORKER_FD": str(theirs.fileno()), **more}
        self.made = made
        self.process = subprocess.Popen(
            [python, *options, main], cwd=made.root, env=env, pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, start_new_session=True)
        theirs.close()
        self.python = python
        self.socket = ours
        self.socket.settimeout(PATIENCE)
        self.next = 1
        made.processes.append(self.process)
        made.sockets.append(ours)

    def ask(self, op: str, fds: Sequence[int] = (), **body: Any) -> dict[str, Any]:
        message = json.dumps({"op": op, "id": self.next, **body}).encode()
        data = struct.pack("!I", len(message)) + message
        socket.send_fds(self.socket, [data], list(fds)) if fds else self.socket.sendall(data)
        answer = self._receive()
        assert answer["id"] == self.next
        self.next += 1
        return answer

    def _receive(self) -> dict[str, Any]:
        (length,) = struct.unpack("!I", self._exactly(4))
        answer: dict[str, Any] = json.loads(self._exactly(length))
        return answer

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            assert part, "the worker hung up"
            data += part
        return data

    def fork(self, *argv: str, public: int | None = PUBLIC, files: Sequence[str] = (),
             **more: str) -> Forked:
        """Fork a child that waits; ``argv`` follows the interpreter, ``files`` are loaded ahead."""
        out, out_child = os.pipe()
        go_child, go = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        env = self.made.environ(public, **more)
        start = {"argv": [self.python, *argv], "env": env, "cwd": str(self.made.root)}
        try:
            answer = self.ask("fork", (null, out_child, out_child, go_child), files=list(files),
                              **start)
        finally:
            for fd in (null, out_child, go_child):
                os.close(fd)
        return Forked(answer, start, out, go)

    def close(self) -> None:
        self.socket.close()
        assert self.process.wait(PATIENCE) == 0


@dataclass
class Forked:
    """A child that was forked ahead."""

    answer: Mapping[str, Any]
    start: Mapping[str, Any]
    out: int
    go: int

    @property
    def pid(self) -> int:
        assert self.answer["ok"], self.answer
        return int(self.answer["pid"])

    def let_go(self, **change: Any) -> float:
        """Start it; the moment at which that was."""
        message = json.dumps({**self.start, **change}).encode()
        at = time.perf_counter()
        os.write(self.go, struct.pack("!I", len(message)) + message)
        os.close(self.go)
        return at

    def output(self) -> str:
        """All that it writes, to the end."""
        with open(self.out, "rb") as file:
            return file.read().decode(errors="replace")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.close(self.out)
