"""The real command as a person has it, with a session that the test plays (``session_double``)."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from hyperbox_tui.cli.main import main

DOUBLE = str(Path(__file__).with_name("session_double.py"))
PATIENCE = 30.0


def eventually(seen: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := seen():
            return found
        time.sleep(0.01)
    raise AssertionError(f"never: {what}")


@contextmanager
def _put_in_place(environ: dict[str, str], cwd: Path) -> Iterator[None]:
    before, here = dict(os.environ), os.getcwd()
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


class Played:
    """One project and the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fifo = folder.parent / "control"
        self.log = folder.parent / "asked"
        self.out = folder.parent / "up.out"
        self.environ = {**os.environ, "LC_ALL": "C.UTF-8", "TERM": "xterm",
                        "DOUBLE_CONTROL": str(self.fifo), "DOUBLE_ASKED": str(self.log)}
        self.pid = 0
        os.mkfifo(self.fifo)
        folder.mkdir()
        (folder / "hyperbox.toml").write_text('[app]\ncommand = ["python3", "app.py"]\n')
        (folder / "app.py").write_text("first\nsecond\n\tbroken( here\n")

    def run(self, *words: str, cwd: Path | None = None,
            **environ: str) -> subprocess.CompletedProcess[bytes]:
        """The command to its end, in this very process: a start of Python each time is dear."""
        streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
        with _put_in_place({**self.environ, **environ}, cwd or self.folder), \
                redirect_stdout(streams[0]), redirect_stderr(streams[1]):
            status = main(words)
        for stream in streams:
            stream.flush()
        out, err = (stream.buffer.getvalue() for stream in streams)  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(words, status, out, err)

    def outside(self, *words: str, stdin: bytes = b"", cwd: Path | None = None,
                **environ: str) -> subprocess.CompletedProcess[bytes]:
        """The command to its end as a process of its own."""
        return subprocess.run([*self.argv(*words), *words], cwd=cwd or self.folder, input=stdin,
                              env={**self.environ, **environ}, capture_output=True,
                              timeout=PATIENCE, check=False)

    def argv(self, *words: str) -> list[str]:
        """The real command, and for what opens or ends a session the one with the double in it."""
        if words and words[0] in ("up", "down"):
            return [sys.executable, DOUBLE]
        return [sys.executable, "-P", "-m", "hyperbox_tui.cli.main"]

    def text(self, *words: str, **environ: str) -> str:
        """What it says on standard output; it must succeed."""
        done = self.run(*words, **environ)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def json(self, *words: str) -> Any:
        return json.loads(self.text(*words, "--json"))

    @contextmanager
    def up(self, *words: str, wait: bool = True, stdin: int = subprocess.DEVNULL,
           **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        """`up` in the background, its output in ``self.out``."""
        with open(self.out, "wb") as out, subprocess.Popen(
                [*self.argv("up"), "up", *words], cwd=self.folder, stdin=stdin, stdout=out,
                stderr=subprocess.STDOUT, env={**self.environ, **environ}) as process:
            self.pid = process.pid
            try:
                if wait:
                    self.wait_said("live")
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def said(self) -> str:
        return self.out.read_text("utf-8", "replace") if self.out.exists() else ""

    def wait_said(self, text: str) -> str:
        return str(eventually(lambda: text in self.said() and self.said(),
                              f"{text!r} in {self.said()!r}"))

    def play(self, **order: Any) -> None:
        """Have the session do something."""
        with open(self.fifo, "w") as fifo:
            fifo.write(json.dumps(order) + "\n")

    def emit(self, **event: Any) -> None:
        self.play(emit=event)

    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] \
            if self.log.exists() else []

    def wait_asked(self, **wanted: Any) -> None:
        eventually(lambda: any(wanted.items() <= one.items() for one in self.asked()),
                   f"{wanted} in {self.asked()}")


@pytest.fixture
def played(tmp_path: Path) -> Played:
    """A project that is not up."""
    return Played(tmp_path / "shop")


@pytest.fixture(scope="module")
def one_up(tmp_path_factory: pytest.TempPathFactory, runtime_dir: str) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("live") / "shop"
    played = Played(folder)
    # The project outlives the homes that each test gets.
    played.environ |= {"XDG_RUNTIME_DIR": tempfile.mkdtemp(dir=runtime_dir),
                       "XDG_STATE_HOME": str(folder.parent / "state")}
    with played.up():
        yield played


@pytest.fixture
def live(one_up: Played) -> Played:
    """A project that is up, shared by the tests of a file, as a new one."""
    one_up.log.unlink(missing_ok=True)
    one_up.play(reset=True)
    one_up.wait_asked(asked="reset")
    one_up.log.unlink()
    return one_up


BROKEN = {"event": "generation", "number": 2, "verdict": "rolled_back", "rung": "warm",
          "why": "app.py changed", "files": 1, "bytes": 3, "ms": {"total": 3.0}, "serving": 1,
          "error": {"phase": "gate", "path": "app.py", "line": 3, "column": 8,
                    "message": "SyntaxError: '(' was never closed"}, "paths": ["app.py"]}


@pytest.fixture
def broken_generation() -> dict[str, Any]:
    return json.loads(json.dumps(BROKEN))
