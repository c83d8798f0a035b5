"""``hyperbox-agent run``: the agent keeps a program live by itself, as inside a container."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from journey import Project, Steady, eventually, leftovers

from hyperbox_agent.core.generation import Failure, Outcome, Verdict
from hyperbox_agent.run import Speaker
from hyperbox_agent.supervise.pipeline import Flight, Shipped
from hyperbox_langpacks.base import Rung

RUN = (sys.executable, "-m", "hyperbox_agent", "run")


class Alone:
    """A running ``hyperbox-agent run --json`` and what it said."""

    def __init__(self, project: Project) -> None:
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [*RUN, str(project.root), "--port", str(project.port), "--json", "--",
             sys.executable, "app.py"],
            env=project.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def generation(self, verdict: str, number: int) -> dict[str, Any] | None:
        """The generation with this verdict and number, once it is there."""
        for event in list(self.events):
            if (event.get("event"), event.get("verdict"), event.get("number")) == (
                    "generation", verdict, number):
                return event
        return None

    def end(self) -> int:
        """Ask it to end; gives its exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self._reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return status


def test_it_keeps_a_program_live_and_leaves_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (project.root / "hyperbox.toml").unlink()
    alone = Alone(project)
    try:
        eventually(lambda: alone.generation("committed", 1) is not None)
        with Steady(project.port) as steady:
            project.version("v2")
            eventually(lambda: alone.generation("committed", 2) is not None)
            assert project.ask() == "v2"
            project.write("ver.py", "def x(:\n")
            eventually(lambda: alone.generation("rolled_back", 3) is not None)
            broken = alone.generation("rolled_back", 3)
            assert broken is not None
            assert (broken["error"]["path"], broken["error"]["line"]) == ("ver.py", 1)
            assert project.ask() == "v2"
            project.version("v4")
            eventually(lambda: alone.generation("committed", 4) is not None)
            assert project.ask() == "v4"
        assert not steady.failures
    finally:
        assert alone.end() == 0
    assert not leftovers(project)


def test_wrong_arguments_are_said_in_one_sentence(tmp_path: Path) -> None:
    for words, said in ((["--port", "0"], "--port needs a number"), (["--nope"], "unknown option"),
                        ([str(tmp_path / "missing")], "is not a folder")):
        done = subprocess.run([*RUN, *words], capture_output=True, text=True, timeout=20)
        assert done.returncode == 2
        assert said in done.stderr


def test_one_folder_has_one_agent(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (project.root / "hyperbox.toml").unlink()
    alone = Alone(project)
    try:
        eventually(lambda: alone.generation("committed", 1) is not None)
        second = subprocess.run([*RUN, str(project.root)], env=project.env, capture_output=True,
                                text=True, timeout=60)
        assert second.returncode == 1
        assert "another agent already runs" in second.stderr
        assert "end the hyperbox-agent" in second.stderr
        assert project.ask() == "v1"
    finally:
        assert alone.end() == 0
    assert not leftovers(project)


def test_a_fault_of_the_pipeline_ends_the_agent_and_is_said(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (project.root / "hyperbox.toml").unlink()
    code = ("import sys; from hyperbox_agent import run\n"
            "async def broken(self): raise RuntimeError('no \\x1b]0;way\\x07')\n"
            "run.Pipeline.run = broken\n"
            "sys.exit(run.main([sys.argv[1]]))")
    done = subprocess.run([sys.executable, "-c", code, str(project.root)], env=project.env,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "RuntimeError: no \\x1b]0;way\\x07" in done.stderr
    assert not leftovers(project)


def test_b45_no_escape_of_a_name_or_a_line_reaches_the_terminal_of_run(
        capsys: pytest.CaptureFixture[str]) -> None:
    speaker = Speaker(as_json=False)
    nasty = "a\x1b]0;pwned\x07\n\udcff.py"
    for stream in ("stdout", "stderr"):
        speaker.event({"event": "log", "stream": stream, "text": nasty})
    speaker.event({"event": "log", "stream": "stdout", "text": "\x1b[31mred\x1b[0m"})
    speaker.problem(nasty, None, nasty)
    failure = Failure("gate", nasty, nasty, 3)
    outcome = Outcome(2, Verdict.ROLLED_BACK, Rung.WARM, nasty, {}, failure)
    flight = cast("Flight", SimpleNamespace(
        number=2, batch=SimpleNamespace(first_event=0.0), settled_at=0.0, ended_at=0.0))
    speaker.ended(flight, Shipped(outcome, 0))
    said = "".join(capsys.readouterr())
    assert "\x1b" not in said
    assert "\x07" not in said
    assert said.count("\\x1b]0;pwned\\x07") == 6
    assert "red" in said
