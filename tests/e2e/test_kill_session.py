"""``kill -9`` of ``up`` (and of more) in each phase: the next ``up`` adopts, ``down`` ends."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from journey import Project, Steady, Up, eventually, leftovers
from killing import (
    MODES,
    PHASES,
    Walk,
    await_all,
    check_answers,
    converged,
    down,
    is_whole,
    kill,
    make_project,
    pids,
    reading,
    residue,
    running,
    save,
)


def session_walk(folder: Path, mode: str, phases: tuple[str, ...], more: str = "") -> None:
    """Kill ``up`` (and what ``more`` names, joined by ``+``) in each phase; the next takes over."""
    project, names = make_project(folder, mode), {"session", *filter(None, more.split("+"))}
    client = nullcontext() if {"agent", "holder"} <= names else Steady(project.port)
    with ExitStack() as after, running(project) as first, reading(project), client as steady:
        steps = Walk(project, first)
        for phase in phases:
            ours = pids(project)
            word = steps.save_until(phase)
            kill(*(ours[part] for part in names))
            steps.up.process.wait(60)
            if not {"agent", "holder"} <= names:
                _goes_on_without_it(project, told=not more)
            steps.up = Up(project)
            after.callback(steps.up.end)
            steps.up.wait_state("live")
            if phase == "idle":
                _await_adoption(project, ours["program"])
                word = steps.next_word()
                save(project, word)
            converged(project, word)
            await_all(project)
        if steady is not None:
            steady.stop()
            check_answers(steady, project, cuts=len(phases) if "holder" in names else 0)


def _await_adoption(project: Project, program: int) -> None:
    """Wait for a session for which this very process is what answers."""
    def adopted() -> bool:
        shown = [(target["state"], target["pid"]) for one in project.json("status")["projects"]
                 if one.get("session") is not None for target in one["targets"]]
        return shown == [("live", program)]

    eventually(adopted, message="it was not adopted")


def _goes_on_without_it(project: Project, *, told: bool) -> None:
    """The program answers, and from one whole tree; ``told``: ``status`` shows it."""
    eventually(lambda: "session" not in pids(project))
    if project.mode == "mirror":
        eventually(lambda: is_whole(project), 60, "the tree stayed mixed")
    assert project.ask(timeout=30)
    if not told:
        return
    status = project.json("status")["projects"][0]
    assert status["session"] is None
    (target,) = status["targets"]
    assert target["state"] == "live"
    assert target["number"] is not None
    assert "no session" in project.hb("status").stdout


def test_up_is_killed_in_an_apply(tmp_path: Path) -> None:
    session_walk(tmp_path, "mirror", ("apply",))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("more", ["", "agent", "holder", "agent+holder", "agent+holder+worker"])
def test_up_in_each_phase(tmp_path: Path, mode: str, more: str) -> None:
    session_walk(tmp_path, mode, PHASES, more)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("phase", ["idle", "apply", "reload", "live"])
@pytest.mark.parametrize("parts", ["session", "session+agent", "session+holder",
                                   "session+agent+holder", "agent", "holder", "program"])
def test_down_ends_what_the_killed_ones_left(tmp_path: Path, parts: str, phase: str,
                                             mode: str) -> None:
    project = make_project(tmp_path, mode)
    with running(project) as up:
        ours = pids(project)
        Walk(project, up).save_until(phase)
        kill(*(ours[part] for part in parts.split("+")))
        if "session" in parts:
            up.process.wait(60)
        down(project)
        assert not leftovers(project), leftovers(project)
        assert not residue(project), residue(project)


def test_down_ends_what_session_and_agent_left(tmp_path: Path) -> None:
    project = make_project(tmp_path, "mirror")
    with running(project) as up:
        ours = pids(project)
        kill(ours["session"], ours["agent"])
        up.process.wait(60)
        assert project.ask() == "v1"


@pytest.mark.slow
def test_down_ends_a_program_whose_port_somebody_else_took(tmp_path: Path) -> None:
    """Session, agent and holder were killed, and the port is another program's before ``down``."""
    project = make_project(tmp_path, "mirror")
    with running(project) as up:
        ours = pids(project)
        kill(ours["session"], ours["agent"], ours["holder"])
        up.process.wait(60)
        assert os.path.isdir(f"/proc/{ours['program']}")
        with socket.create_server(("127.0.0.1", project.port)):
            down(project)
            assert not leftovers(project), leftovers(project)
