"""B36: output comes at once, whole, and goes on over restarts."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import threading
from pathlib import Path
from typing import Any

from journey import HYPERBOX, Project, eventually

SPEAKING = '''\
import signal, sys, ver
print("hello from", ver.V)
print("\\x1b[31mred\\x1b[0m")
print("no newline", end="")
def bye(*_):
    print(" last words", end="")
    raise ValueError(ver.V)
signal.signal(signal.SIGTERM, bye)
'''


def speaking(folder: Path) -> Project:
    project = Project(folder)
    project.env.pop("PYTHONUNBUFFERED", None)  # it would hide that output is held back
    project.write("app.py", SPEAKING + (project.root / "app.py").read_text())
    return project


class Follower:
    """``hyperbox logs -f --json`` in the background."""

    def __init__(self, project: Project) -> None:
        self.process = subprocess.Popen(
            [*HYPERBOX, "logs", "-f", "--json"], cwd=project.root, env=project.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.events: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.events.extend(map(json.loads, self.process.stdout))

    def texts(self, number: int, stream: str = "stdout") -> list[str]:
        """What a generation said."""
        return [event["text"] for event in self.events if event.get("event") == "log"
                and (event["number"], event["stream"]) == (number, stream)]

    def ended(self) -> int:
        status = self.process.wait(60)
        self._thread.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def test_b36_logs_follow_over_three_restarts_to_the_last_word(tmp_path: Path) -> None:
    project = speaking(tmp_path)
    with project.up() as up:
        follower = Follower(project)
        eventually(lambda: "hello from v1" in follower.texts(1))
        numbers = [1]
        for word in ("v2", "v3", "v4"):
            mark = up.mark()
            project.version(word)
            numbers.append(up.wait_generation(after=mark)["number"])
            eventually(lambda: f"hello from {word}" in follower.texts(numbers[-1]))  # noqa: B023
        # The program still runs: a line that has no end yet is shown all the same.
        eventually(lambda: "no newline" in follower.texts(numbers[-1]))
    assert follower.ended() == 0
    for number, word in zip(numbers, ("v1", "v2", "v3", "v4"), strict=True):
        said = follower.texts(number)
        assert said[0] == f"hello from {word}"
        assert "".join(said).endswith("no newline last words"), said
        assert not [text for text in said if "\x1b" in text], "colours in --json"
        trace = follower.texts(number, "stderr")
        assert trace[0] == "Traceback (most recent call last):"
        assert trace[-1] == f"ValueError: {word}"


def test_b36_the_first_line_comes_while_the_program_still_starts(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.env.pop("PYTHONUNBUFFERED", None)
    gate = tmp_path / "gate"
    project.write("app.py", f'''\
import os, time
print("hello")
while not os.path.exists({str(gate)!r}):
    time.sleep(0.01)
{(project.root / "app.py").read_text()}''')
    with project.up(live=False) as up:
        up.wait(lambda e: e.get("event") == "log" and e["text"] == "hello")
        assert "live" not in [e.get("state") for e in up.events]
        gate.touch()
        up.wait_state("live")


def test_b36_colours_stay_on_a_terminal(tmp_path: Path) -> None:
    project = speaking(tmp_path)
    env = {key: value for key, value in project.env.items() if key != "NO_COLOR"}
    with project.up():
        master, slave = pty.openpty()
        shown = subprocess.Popen([*HYPERBOX, "logs"], cwd=project.root, stdin=slave, stdout=slave,
                                 stderr=slave, env={**env, "TERM": "xterm-256color"})
        os.close(slave)
        seen = b""
        while True:
            try:
                seen += os.read(master, 4096)
            except OSError:  # EIO: the last writer is gone
                break
        os.close(master)
        assert shown.wait(60) == 0
        assert b"\x1b[31mred" in seen
        piped = project.hb("logs")
        assert "red" in piped.stdout
        assert "\x1b" not in piped.stdout
