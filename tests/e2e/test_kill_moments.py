"""``kill -9`` in moments that a walk through the phases meets only by chance: while the program is
frozen, while an old version drains; and of the program itself."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from journey import Steady, Up, ask, eventually
from killing import (
    MODES,
    Walk,
    await_frozen,
    check_answers,
    converged,
    is_stopped,
    is_whole,
    kill,
    make_project,
    pids,
    reading,
    running,
    save,
)

MANY = 3000
"""Files of a batch that is replaced in some 100 ms, for which the program is frozen."""


def test_a_killed_program_comes_back_as_the_last_good_generation(tmp_path: Path) -> None:
    project = make_project(tmp_path, "in-place")
    with running(project) as up:
        mark = up.mark()
        save(project, "v2")
        good = up.wait_generation(after=mark)
        mark = up.mark()
        project.write("a.py", "V = (\n")
        up.wait_generation("rolled_back", after=mark)
        for _ in range(2):
            mark = up.mark()
            pid = project.target()["pid"]
            os.kill(pid, signal.SIGKILL)
            up.wait_state("broken", after=mark)
            live = up.wait_state("live", after=mark)
            assert live["number"] == good["number"]
            assert live["pid"] != pid
            assert project.ask().split()[0] == "v2"
        mark = up.mark()
        save(project, "v3")
        up.wait_generation(after=mark)
        assert project.ask() == "v3"


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["agent", "session+agent", "agent+holder", "holder", "worker",
                                   "program"])
def test_killed_while_the_program_is_frozen(tmp_path: Path, parts: str) -> None:
    project, names = make_project(tmp_path, "mirror"), parts.split("+")
    for number in range(MANY):
        project.write(f"data/{number}", "v1")
    with running(project) as up, reading(project):
        ours = pids(project)
        for number in range(MANY):
            project.write(f"data/{number}", "v2")
        save(project, "v2")
        assert await_frozen(ours["program"]), "it was never frozen"
        kill(*(ours[part] for part in names))
        eventually(lambda: is_whole(project), message="the tree stayed mixed")
        eventually(lambda: not is_stopped(ours["program"]), message="it stayed frozen")
        if parts != "agent+holder":
            assert project.ask(timeout=30).split()[0] in ("v1", "v2")
        later = Up(project) if "session" in names else up
        try:
            later.wait_state("live")
            converged(project, "v2")
            said = {file.read_text() for file in (project.tree / "data").iterdir()}
            assert said == {"v2"}
        finally:
            if later is not up:
                later.end()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", ["agent", "session", "worker", "spare", "holder", "program"])
def test_killed_while_the_old_version_drains(tmp_path: Path, part: str, mode: str) -> None:
    """A long answer of the old version comes to its end, unless it went through what was killed."""
    project = make_project(tmp_path, mode)
    with running(project) as up, reading(project), Steady(project.port) as steady, \
            ThreadPoolExecutor(1) as pool:
        steps, ours = Walk(project, up), pids(project)
        long = pool.submit(ask, project.port, "/slow")
        up.wait(lambda event: "begun" in str(event.get("text")))
        word = steps.save_until("live")
        assert not long.done(), "it had nothing to drain"
        kill(ours[part])
        if part in ("holder", "program"):
            assert long.exception(30) is not None
        else:
            assert long.result(30).split()[0] == "v1"
        later = Up(project) if part == "session" else up
        try:
            later.wait_state("live")
            converged(project, word)
            eventually(lambda: not os.path.isdir(f"/proc/{ours['program']}"))
            steady.stop()
            check_answers(steady, project, cuts=part in ("holder", "program", "spare"))
        finally:
            if later is not up:
                later.end()
