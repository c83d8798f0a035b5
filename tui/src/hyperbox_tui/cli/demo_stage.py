"""The demo's stage: a folder of its own, the real command brought up in it, and nothing left after.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from hyperbox_devcontainer.errors import WorkstationError
from hyperbox_tui.cli import demo_app
from hyperbox_tui.cli.demo_load import Loader, ask
from hyperbox_tui.cli.own import own_command

START_SECONDS = 30.0
STEP_SECONDS = 15.0
STOP_SECONDS = 15.0


class DemoError(WorkstationError):
    """The demo can't go on: the app did not come up, or a save had no end."""


class Stage:
    """A context: inside it the app is there and `up` runs; after it nothing of both is left."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.base = tempfile.mkdtemp(prefix="hyperbox-demo-")
        self.folder = os.path.join(self.base, "hello")
        self.port = _free_port()
        self.events: list[dict[str, Any]] = []
        self.loader: Loader | None = None
        self._changed = threading.Condition()
        self._environ = {
            **{name: value for name, value in environ.items() if not name.startswith("HYPERBOX_")},
            "XDG_STATE_HOME": os.path.join(self.base, "state"),
            "XDG_RUNTIME_DIR": os.path.join(self.base, "run")}
        self._up: subprocess.Popen[bytes] | None = None
        self._errors = b""
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Stage:
        os.mkdir(self.folder)
        os.mkdir(self._environ["XDG_RUNTIME_DIR"], 0o700)
        demo_app.write_app(self.folder, [sys.executable, "app.py"], self.port)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.loader is not None:
            self.loader.close()
        try:
            if self._up is not None and self._up.poll() is None:
                self.stop()
            self._close_pipes()
        finally:
            shutil.rmtree(self.base, ignore_errors=True)

    def _close_pipes(self) -> None:
        """Both ends at their end: the readers have read what `up` said last."""
        for reader in self._readers:
            reader.join(STEP_SECONDS)
        for pipe in (self._up.stdout, self._up.stderr) if self._up is not None else ():
            if pipe is not None:
                pipe.close()

    # The product, from outside

    def start(self) -> None:
        """`hyperbox up --json` in the app's folder; its events are collected from now on."""
        # A session of its own: the person's Ctrl-C is the demo's to handle, in order.
        self._up = subprocess.Popen(
            own_command("up", "--json"), cwd=self.folder, env=self._environ,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True)
        self._readers = [threading.Thread(target=reader, daemon=True)
                         for reader in (self._read_events, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def verb(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Another verb of the product, as a person in a second terminal would use it."""
        done = subprocess.run(own_command(*words, "--json"), cwd=self.folder, env=self._environ,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=START_SECONDS)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            raise DemoError(f"`hyperbox {words[0]}` said nothing: "
                            f"{done.stderr.decode(errors='replace')[-500:]}") from None
        return done.returncode, answer

    def stop(self) -> int:
        """Ctrl-C; the exit status of `up`."""
        assert self._up is not None
        self._up.send_signal(signal.SIGINT)
        try:
            return self._up.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._up.kill()
            self.verb("down")
            return self._up.wait()

    def left_over(self) -> list[str]:
        """What is still there of it: processes with this stage's environment, the port."""
        mark = os.fsencode(f"XDG_STATE_HOME={self._environ['XDG_STATE_HOME']}")
        left = [f"process {pid}" for pid in filter(str.isdigit, os.listdir("/proc"))
                if mark in _environ_of(pid).split(b"\0")]
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                left.append(f"port {self.port}")
        return left

    # What it says

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], *, after: int = 0,
                 seconds: float = STEP_SECONDS) -> dict[str, Any]:
        """The first event of that kind after a position. Raises DemoError."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                for event in self.events[after:]:
                    if wanted(event):
                        return event
                after = len(self.events)
                if self._up is not None and self._up.poll() is not None:
                    raise self._ended()
                if not self._changed.wait(max(0.0, min(0.2, deadline - time.monotonic()))) \
                        and time.monotonic() >= deadline:
                    raise DemoError(f"nothing came within {seconds:.0f} s. {self._said()}".strip(),
                                    hint="`hyperbox doctor` says what this machine lacks")

    def wait_generation(self, after: int) -> dict[str, Any]:
        """The next generation that was decided. Raises DemoError."""
        return self.wait_for(lambda event: event.get("event") == "generation"
                             and event.get("verdict") != "superseded", after=after)

    def wait_answer(self, wanted: Callable[[dict[str, Any]], bool]) -> float:
        """When the first answer of that kind was whole, on the clock of ``perf_counter``."""
        deadline = time.perf_counter() + STEP_SECONDS
        seen: object = None
        while time.perf_counter() < deadline:
            try:
                answer = ask(self.port)
            except (OSError, http.client.HTTPException, ValueError) as error:
                seen = error  # the loader counts it; here only the right answer ends the wait
            else:
                if wanted(answer):
                    return time.perf_counter()
                seen = answer
            time.sleep(0.001)
        raise DemoError(f"the new version did not answer within {STEP_SECONDS:.0f} s, but this: "
                        f"{seen}; the last generation: {self._last_generation()}")

    def _last_generation(self) -> str:
        for event in reversed(self.events):
            if event.get("event") == "generation":
                error = event.get("error") or {}
                return f"#{event.get('number')} {event.get('verdict')} {error.get('message') or ''}"
        return "none"

    def sources(self) -> dict[str, bytes]:
        """Every file of the app, to see that nobody else changes one."""
        found = {}
        for folder, names, files in os.walk(self.folder):
            names[:] = [name for name in names if name != "__pycache__"]
            for name in files:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found[path] = file.read()
        return found

    def _ended(self) -> DemoError:
        self._readers[1].join(STEP_SECONDS)
        return DemoError(f"`hyperbox up` ended: {self._said()}")

    def _said(self) -> str:
        return self._errors.decode(errors="replace").strip()[-800:]

    def _read_events(self) -> None:
        assert self._up is not None
        assert self._up.stdout is not None
        for line in self._up.stdout:
            event = json.loads(line)
            with self._changed:
                self.events.append(event)
                self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self._up is not None
        assert self._up.stderr is not None
        for line in self._up.stderr:
            self._errors = (self._errors + line)[-8000:]


def _environ_of(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _free_port() -> int:
    """A port that is free and will be: below those that the system gives to clients (32768 on),
    any of which may be taken by somebody's connection in the moment in between.
    """
    for port in random.sample(range(18_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # somebody has it
            return port
    raise DemoError("no free port was found between 18000 and 32000")
