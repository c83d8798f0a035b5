"""B12: with the target gone no verb hangs; when it is back, so is everything."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from journey import Project, ask, eventually, processes

pytestmark = pytest.mark.needs("linux")


def agent_of(project: Project) -> int:
    mark = project.env["XDG_STATE_HOME"]
    found = [pid for pid, line, env in processes(mark)
             if " serve --home " in line and f"XDG_STATE_HOME={mark}" in env]
    assert len(found) == 1, found
    return found[0]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass  # it was ended meanwhile, as it should be


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["in-place", "mirror"])
def test_b12_a_target_that_stands_still(tmp_path: Path, mode: str) -> None:
    project = Project(tmp_path, mode=mode)
    with project.up():
        project.hb("flush")  # what is live is counted as pending until its generation is decided
        with stopped(agent_of(project)):
            project.version("v2")
            began = time.monotonic()
            late = project.hb("flush", "--timeout", "3")
            assert time.monotonic() - began < 20
            assert late.returncode == 1
            assert "process does not answer" in late.stderr
            eventually(lambda: project.target()["state"] == "offline")
            shown = project.target()
            assert shown["pending"] == 1
            assert any("no sign of life" in problem["message"] for problem in shown["problems"])
            # The program itself is none the worse.
            assert ask(project.port) == "v1"
        assert project.hb("flush").returncode == 0
        assert ask(project.port) == "v2"
        assert project.target()["state"] == "live"
        assert project.target()["problems"] == []


def test_b12_flush_with_nothing_to_do_still_asks_the_target(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with project.up():
        with stopped(agent_of(project)):
            assert project.hb("flush", "--timeout", "1").returncode == 1
        assert project.hb("flush").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["in-place", "mirror"])
def test_b12_down_ends_what_stands_still(tmp_path: Path, mode: str) -> None:
    project = Project(tmp_path, mode=mode)
    with project.up(), stopped(agent_of(project)):
        project.version("v2")
        down = project.hb("down", timeout=60)
        assert down.returncode == 0, down.stderr
    # That nothing is left, and that a second down is no error, is seen by the end of ``up``.


def test_b12_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror")
    with project.up():
        killed = agent_of(project)
        os.kill(killed, signal.SIGKILL)
        project.version("v2")
        flushed = project.hb("flush")
        assert flushed.returncode == 0, (flushed.stdout, flushed.stderr, project.generations())
        eventually(lambda: ask(project.port) == "v2")
        assert agent_of(project) != killed


def test_b12_status_is_quick_and_says_it_while_nobody_can_be_reached(tmp_path: Path) -> None:
    """The target's folder is taken away with its agent: nothing can be started there."""
    project = Project(tmp_path, mode="mirror")
    away = tmp_path / "away"
    with project.up():
        project.hb("flush")
        home = tmp_path / ".hyperbox-T"
        assert home.is_dir()
        home.rename(away)
        home.write_text("no folder")
        os.kill(agent_of(project), signal.SIGKILL)
        eventually(lambda: project.target()["state"] == "offline")
        project.version("v2")
        eventually(lambda: project.target()["pending"] == 1)
        late = project.hb("flush", "--timeout", "1")
        assert late.returncode == 1
        assert "process is gone" in late.stderr
        assert any("can't be reached" in problem["message"]
                   for problem in project.target()["problems"])
        home.unlink()
        away.rename(home)
        assert project.hb("flush").returncode == 0
        assert ask(project.port) == "v2"
