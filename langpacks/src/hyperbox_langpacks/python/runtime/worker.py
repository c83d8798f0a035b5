"""The worker: gates staged files, and is the prepared parent that instances are forked from.

One process, one thread, one request at a time; see ``docs/pack-workers.md`` for the protocol.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from .codes import CodeStore
from .gate import gate
from .wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .forking import Child

    Request = Mapping[str, Any]
    Answer = dict[str, Any]


class Worker:
    """The state of one worker and its answers to each request."""

    def __init__(self, wire: Wire, spec: Mapping[str, Any]) -> None:
        self.wire = wire
        self.spec = spec
        self.root: str = spec["root"]
        self.codes = CodeStore(spec["code"])
        self.prepared = False
        self.child: Child | None = None
        """In a forked child: what it is to become. The loop ends with it."""
        self.operations: dict[str, Callable[[Request, list[int]], Answer]] = {
            "hello": self.hello, "gate": self.gate, "prepare": self.prepare, "fork": self.fork}

    def serve(self) -> Child | None:
        """Answer until the agent closes the socket; in a forked child, return what to run."""
        self._finish_interrupted()
        while True:
            received = self.wire.receive()
            if received is None:
                return None
            request, fds = received
            answer = self._answer(request, fds)
            if self.child is not None:
                return self.child
            self.wire.send({"id": request.get("id"), **answer})
            self.codes.catch_up()

    def _answer(self, request: Request, fds: list[int]) -> Answer:
        operation = self.operations.get(str(request.get("op")))
        if operation is None:
            return {"ok": False, "error": f"unknown operation {request.get('op')!r}"}
        began = time.perf_counter()
        try:
            answer = operation(request, fds)
        except (OSError, ValueError, KeyError, TypeError) as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        if self.child is None:
            for fd in fds:
                os.close(fd)
        answer.setdefault("ms", round((time.perf_counter() - began) * 1e3, 3))
        return answer

    def _finish_interrupted(self) -> None:
        """Go on with a ``prepare`` for which this process was started anew."""
        from .prepare import take_resumed

        request = take_resumed(os.environ)
        if request is not None:
            self.wire.send({"id": request.get("id"), **self._answer(request, [])})

    # ---------------------------------------------------------------------------- the operations

    def hello(self, request: Request, fds: list[int]) -> Answer:
        """Who we are; also the moment to throw away old compiled code."""
        self.codes.prune()
        return {"ok": True, "python": "{}.{}.{}".format(*sys.version_info), "pid": os.getpid(),
                "executable": sys.executable}

    def gate(self, request: Request, fds: list[int]) -> Answer:
        """Compile and check files."""
        return {"ok": True, "errors": gate(request["files"], self.root, self.codes)}

    def prepare(self, request: Request, fds: list[int]) -> Answer:
        """Import what the program imports from outside its tree, and warm it up."""
        from .prepare import prepare

        answer = prepare(self.wire, self.spec, request)
        self.prepared = bool(answer["ok"])
        return answer

    def fork(self, request: Request, fds: list[int]) -> Answer:
        """Fork a child that waits for its go."""
        from .forking import fork

        answer, self.child = fork(self.wire, self.spec, request, fds)
        return answer


def start() -> Child | None:
    """Take over the process as a worker; returns only in a forked child, or at the end."""
    import json

    wire = Wire(int(os.environ["HYPERBOX_WORKER_FD"]))
    # Ctrl-C in the user's terminal is the agent's affair.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return Worker(wire, json.loads(os.environ["HYPERBOX_WORKER_SPEC"])).serve()
