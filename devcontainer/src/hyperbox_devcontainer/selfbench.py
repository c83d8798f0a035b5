"""A short measure of this machine: how fast a save goes live, and what the port's relay costs.

``hyperbox bench`` prints it. It needs nothing but what is installed: a small app of the standard
library, brought up with the command line that the caller gives. The comparison with other tools is
``./dev bench`` of a checkout.
"""

from __future__ import annotations

import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hyperbox_devcontainer.errors import WorkstationError

START_SECONDS = 60.0
EDIT_SECONDS = 15.0
STOP_SECONDS = 20.0
SETTLED_SECONDS = 2.0
"""Between the first answer and the first edit: nobody edits sooner."""
WARM_UP_EDITS = 3
"""Not measured: after these the saves of this person are known to be of single files."""
APP = '''import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "{version}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # one segment an answer: two would wait for a delayed acknowledgement

    def log_message(self, *args):
        pass

    def do_GET(self):
        data = VERSION.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
'''


class BenchError(WorkstationError):
    """The app did not come up, or an edit never went live."""


@dataclass(frozen=True, slots=True)
class SelfMeasure:
    """All in milliseconds. An edit runs from before the write to the end of its first answer."""

    edits: int
    edit_p50: float
    edit_p95: float
    relay_kept: float
    """What a request on a kept connection costs more than asking the app itself, at the median."""
    relay_new: float
    """The same on a new connection."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"edits": self.edits, "edit_ms": {"p50": self.edit_p50, "p95": self.edit_p95},
                "relay_ms": {"kept": self.relay_kept, "new": self.relay_new}}


def measure(up: Sequence[str], *, edits: int = 20, requests: int = 500) -> SelfMeasure:
    """Measure with ``up``, the command line that brings up the project in its working folder.

    Everything happens in a temporary folder and is ended and removed. Raises BenchError.
    """
    with tempfile.TemporaryDirectory(prefix="hyperbox-bench-") as base:
        folder = os.path.join(base, "app")
        os.mkdir(folder)
        port, bare = _free_port(), _free_port()
        argv = [sys.executable, "app.py"]
        command = ", ".join(f"'{word}'" for word in (*argv, str(port)))
        _write(folder, "hyperbox.toml", f"[app]\ncommand = [{command}]\nport = {port}\n")
        _write(folder, "app.py", APP.format(version=0))
        environ = {**os.environ, "XDG_STATE_HOME": os.path.join(base, "state")}
        with _running([*argv, str(bare)], folder, environ), _running(up, folder, environ):
            _until(bare, "0", START_SECONDS)
            _until(port, "0", START_SECONDS)
            time.sleep(SETTLED_SECONDS)
            taken = [_edit(folder, port, number) for number in range(1, WARM_UP_EDITS + edits + 1)]
            taken = sorted(taken[WARM_UP_EDITS:])
            prices = [_median(_ask_many(port, requests, keep=keep))
                      - _median(_ask_many(bare, requests, keep=keep)) for keep in (True, False)]
    return SelfMeasure(edits, round(_median(taken), 1),
                       round(taken[math.ceil(0.95 * len(taken)) - 1], 1),
                       *(round(price, 3) for price in prices))


@contextmanager
def _running(argv: Sequence[str], folder: str, environ: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(argv, cwd=folder, env=environ, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          start_new_session=True) as process:
        try:
            yield
        finally:
            # Ctrl-C is how an attached `up` is told to end all that it started.
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _edit(folder: str, port: int, number: int) -> float:
    # Saves of a person are apart, and at no even distance from any poll.
    time.sleep(0.1 + number % 7 * 0.03)
    before = time.perf_counter()
    _write(folder, "app.py", APP.format(version=number))
    return (_until(port, str(number), EDIT_SECONDS) - before) * 1000


def _until(port: int, answer: str, seconds: float) -> float:
    """When ``answer`` came. Raises BenchError after ``seconds``."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        try:
            with _connect(port) as connection:
                if _ask(connection) == answer:
                    return time.perf_counter()
        except OSError:
            # Not up yet.
            time.sleep(0.01)
        time.sleep(0.001)
    raise BenchError(f"the app did not answer with version {answer} within {seconds:.0f} s",
                     hint="`hyperbox doctor` says what this machine lacks")


def _ask_many(port: int, requests: int, *, keep: bool) -> list[float]:
    taken = []
    kept = _connect(port)
    for _ in range(requests):
        before = time.perf_counter()
        if keep:
            _ask(kept)
        else:
            with _connect(port) as connection:
                _ask(connection)
        taken.append((time.perf_counter() - before) * 1000)
    kept.close()
    return taken


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=EDIT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _ask(connection: socket.socket) -> str:
    """One answer's body; the app's are small, with a length."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
    data = b""
    while b"\r\n\r\n" not in data or not _whole(data):
        more = connection.recv(4096)
        if not more:
            raise ConnectionResetError("closed before the answer was whole")
        data += more
    return data.partition(b"\r\n\r\n")[2].decode()


def _whole(data: bytes) -> bool:
    head, _, body = data.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return len(body) >= int(length or 0)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _free_port() -> int:
    # Below the ports that the kernel gives to clients: a client that waits for one of those can be
    # given it as its own, and then is connected to itself.
    while True:
        port = random.randint(20_000, 30_000)  # noqa: S311 - no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)
