"""A client small enough that its own time does not matter: sockets, one request at a time."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n"
TIMEOUT = 15.0


class BadAnswerError(OSError):
    """The connection gave no complete 200; ``kind`` says what instead."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def _content_length(head: bytes) -> int | None:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return None


def read_answer(connection: socket.socket) -> tuple[str, bool]:
    """The body of one answer, and whether the connection stays open for another.

    Raises BadAnswerError("empty") where the peer closed without a word, and by status otherwise.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise BadAnswerError("empty" if not data else "cut")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = _content_length(head)
    while length is None or len(body) < length:
        more = connection.recv(65536)
        if not more:
            if length is None:
                break
            raise BadAnswerError("cut")
        body += more
    status = head.split(b" ", 2)[1]
    if status != b"200":
        raise BadAnswerError(status.decode())
    keeps = length is not None and b"http/1.0" not in head.lower() and (
        b"connection: close" not in head.lower())
    return body.decode(), keeps


@dataclass
class Prober:
    """Asks one server over and over, on a new connection each time or on a kept one."""

    port: int
    keep: bool
    reconnects: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    _kept: socket.socket | None = None

    def ask(self, timeout: float = TIMEOUT) -> str | None:
        """One answer; None where there was none (counted by kind in ``failures``)."""
        connection = self._kept or self._connect(timeout)
        self._kept = None
        if connection is None:
            return None
        try:
            connection.settimeout(timeout)
            connection.sendall(REQUEST + (b"\r\n" if self.keep else b"Connection: close\r\n\r\n"))
            body, keeps = read_answer(connection)
        except OSError as error:
            self._count(error)
            connection.close()
            return None
        if self.keep and keeps:
            self._kept = connection
        else:
            connection.close()
        return body

    def _connect(self, timeout: float) -> socket.socket | None:
        self.reconnects += 1
        try:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout)
        except OSError as error:
            self._count(error)
            return None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _count(self, error: OSError) -> None:
        kind = error.kind if isinstance(error, BadAnswerError) else {
            ConnectionRefusedError: "refused", ConnectionResetError: "reset",
            BrokenPipeError: "reset", TimeoutError: "timeout"}.get(type(error), "error")
        self.failures[kind] = self.failures.get(kind, 0) + 1

    def until(self, answer: str, seconds: float) -> float | None:
        """Ask until ``answer`` comes; the ``perf_counter`` of its last byte, None: not in time."""
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            if self.ask(min(left, TIMEOUT)) == answer:
                return time.perf_counter()
            # Asking without a pause would take a core away from the subject.
            time.sleep(0.001)
        return None

    def close(self) -> None:
        """Let the kept connection go."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
