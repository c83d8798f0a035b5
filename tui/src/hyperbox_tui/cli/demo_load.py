"""A steady load on the demo's app: it notices everything that a reload could do to a client."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any, NamedTuple

PAUSE = 0.004
"""Seconds between two requests: some 150 a second, and room for the app on a small machine."""
NEW_EVERY = 5
"""Every so many requests comes on a connection of its own, the others on one that is kept."""
LIMIT_SECONDS = 10.0


class Load(NamedTuple):
    """What was seen between two moments."""

    requests: int
    failed: int
    slowest_ms: float
    median_ms: float
    first_failure: str | None = None


class Loader:
    """Asks the app from a thread of its own until ``close``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._took: list[float] = []
        self._failures: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def mark(self) -> tuple[int, int]:
        """This moment, for ``since``."""
        return len(self._took), len(self._failures)

    def since(self, mark: tuple[int, int] = (0, 0)) -> Load:
        """What happened since a moment; default: from the beginning."""
        took, failures = self._took[mark[0]:], self._failures[mark[1]:]
        ordered = sorted(took) or [0.0]
        return Load(len(took) + len(failures), len(failures), round(ordered[-1] * 1000, 1),
                    round(ordered[len(ordered) // 2] * 1000, 2), failures[0] if failures else None)

    def close(self) -> None:
        """Stop asking."""
        self._end.set()
        self._thread.join(LIMIT_SECONDS)

    def _run(self) -> None:
        kept = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT_SECONDS)
        count = 0
        while not self._end.wait(PAUSE):
            count += 1
            began = time.perf_counter()
            try:
                if count % NEW_EVERY:
                    ask_on(kept)
                else:
                    ask(self._port)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._failures.append(f"{type(error).__name__}: {error}")
                kept.close()  # http.client connects again by itself
            else:
                self._took.append(time.perf_counter() - began)
        kept.close()


def ask(port: int, *, timeout: float = LIMIT_SECONDS) -> dict[str, Any]:
    """One whole answer on a new connection. Raises OSError, HTTPException or ValueError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        return ask_on(connection)
    finally:
        connection.close()


def ask_on(connection: http.client.HTTPConnection) -> dict[str, Any]:
    """One whole answer on this connection."""
    connection.request("GET", "/")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise ValueError(f"status {answer.status}")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("not the demo's answer")
    return found
