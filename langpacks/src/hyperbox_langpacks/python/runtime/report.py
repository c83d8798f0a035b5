"""Reports to the agent: one JSON object a line, over a unix socket.

A report never disturbs the program: it raises nothing, waits at most a quarter of a second, and
keeps no descriptor. A kept one could be closed by a program that closes all it does not know
(``os.closerange``), and its number taken by one of the program's own files.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE = 0.25
"""Seconds that one report may take from the program."""
PENDING_LINES = 256
PAUSE = 1.0
"""Seconds without a further try after the agent did not take a report."""


class Reporter:
    """Sends events; what could not be sent goes out with the next one."""

    __slots__ = ("_failed_at", "_pending", "_problems", "path")

    def __init__(self) -> None:
        self.path = ""
        self._pending: list[str] = []
        self._failed_at = -PAUSE
        self._problems = 0

    def event(self, name: str, **fields: object) -> None:
        """Send one event; ``fields`` hold strings, numbers, and lists and dicts of them."""
        self.queue(name, **fields)
        self.flush()

    def queue(self, name: str, **fields: object) -> None:
        """Have an event sent with the next one: a connection costs the program 0.1 ms."""
        if self.path:
            line = encode({"event": name, "pid": os.getpid(), **fields}) + "\n"
            self._pending.append(line)
            del self._pending[:-PENDING_LINES]

    def flush(self) -> None:
        """Send what is waiting, unless the agent has just failed to take it."""
        if self._pending and time.monotonic() - self._failed_at >= PAUSE:
            self._send_pending()

    def _send_pending(self) -> None:
        lines, self._pending = self._pending, []
        try:
            send(self.path, "".join(lines).encode("utf-8", "backslashreplace"))
        except OSError as error:
            # The agent is being replaced, or gone: the program goes on either way. To be refused
            # costs nothing, so the next event tries again: it may be that the program listens.
            if not isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
                self._failed_at = time.monotonic()
            self._pending = lines + self._pending

    def problem(self, where: str, error: BaseException) -> None:
        """Tell of a fault in our own hooks; the first few of a process are enough."""
        self._problems += 1
        if self._problems <= 5:
            self.event("problem", where=where, text=f"{type(error).__name__}: {error}")


REPORTER = Reporter()


def guarded(what: Callable[..., None], *args: object) -> None:
    """Call one of our own functions inside the program; its faults are reported, not raised."""
    try:
        what(*args)
    except Exception as error:  # noqa: BLE001 - whatever fails in us must not fail in the program
        REPORTER.problem(what.__qualname__, error)


def send(path: str, data: bytes) -> None:
    """Connect, send all, close. Raises OSError."""
    # The C socket: importing ``socket`` costs 6–15 ms, and its ``connect`` may be hooked by others.
    import _socket

    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        sock.sendall(data)
    finally:
        sock.close()


def encode(value: object) -> str:
    """A small JSON encoder: importing ``json`` costs the program 3–10 ms."""
    if isinstance(value, str):
        return _quote(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return _encode_object(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return "[" + ",".join(map(encode, value)) + "]"
    return _quote(str(value))


def _encode_object(value: Mapping[str, object]) -> str:
    return "{" + ",".join(_quote(key) + ":" + encode(item) for key, item in value.items()) + "}"


def _quote(text: str) -> str:
    try:
        from _json import encode_basestring_ascii
    except ImportError:  # An interpreter without the C accelerator.
        from json.encoder import encode_basestring_ascii
    return encode_basestring_ascii(text)
