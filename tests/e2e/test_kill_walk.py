"""``kill -9`` of each of our processes in each phase of a save, in place and mirrored.

Whatever is killed: none of a steady client's requests fails (a killed port holder cuts what was in
flight), the tree is of one generation, the newest save goes live, and ``down`` leaves nothing.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from journey import Project, Steady, Up, eventually, leftovers
from killing import (
    PHASES,
    at_phase,
    await_frozen,
    check_answers,
    converged,
    down,
    is_stopped,
    is_whole,
    kill,
    make_project,
    pids,
    reading,
    residue,
    save,
)

MODES = ("in-place", "mirror")


@contextmanager
def running(project: Project) -> Iterator[Up]:
    """``up`` with all of our processes there; afterwards nothing is left at all."""
    with project.up() as up:
        eventually(lambda: {"worker", "spare", "holder"} <= set(pids(project)), 90)
        yield up
    assert not residue(project), residue(project)
    _port_is_free(project)


def _port_is_free(project: Project) -> None:
    with pytest.raises(OSError, match="refused"):
        project.ask(timeout=2)


class Walk:
    """Saves one after the other, each with a kill in it."""

    def __init__(self, project: Project, up: Up) -> None:
        self.project = project
        self.up = up
        self.number = 1

    def next_word(self) -> str:
        self.number += 1
        return f"v{self.number}"

    def strike(self, part: str, phase: str) -> None:
        """Kill it in this phase; what was saved last must go live by itself."""
        pid, mark = pids(self.project)[part], self.up.mark()
        word = self.save_until(phase)
        kill(pid)
        if phase == "idle" or (part == "spare" and self._was_the_program(mark)):
            word = self.next_word()
            save(self.project, word)
        converged(self.project, word)

    def _was_the_program(self, mark: int) -> bool:
        """Whether the spare had become the new version when it was killed, so that this failed."""
        generation = self.up.wait_generation(verdict=None, after=mark)
        error = generation["error"]
        assert error is None or "SIGKILL" in error["message"], generation
        return error is not None

    def save_until(self, phase: str) -> str:
        """Save, and return when the save is in ``phase``; gives what the newest save says."""
        if phase == "idle":
            return f"v{self.number}"
        word, mark = self.next_word(), self.up.mark()
        save(self.project, word)
        at_phase(self.up, phase, mark, word)
        return word


def walk(folder: Path, mode: str, part: str, phases: tuple[str, ...]) -> None:
    project = make_project(folder, mode)
    with running(project) as up, reading(project), Steady(project.port) as steady:
        steps = Walk(project, up)
        for phase in phases:
            steps.strike(part, phase)
            # The next one shall find all of them again.
            eventually(lambda: {"worker", "spare", "holder", "agent"} <= set(pids(project)), 90)
        steady.stop()
        check_answers(steady, project, holders=len(phases) if part == "holder" else 0)
        assert up.process.poll() is None


def test_the_agent_is_killed_in_a_reload(tmp_path: Path) -> None:
    walk(tmp_path, "mirror", "agent", ("reload",))


def test_the_port_holder_is_killed(tmp_path: Path) -> None:
    walk(tmp_path, "in-place", "holder", ("idle",))


def test_the_worker_is_killed_in_its_gate(tmp_path: Path) -> None:
    walk(tmp_path, "mirror", "worker", ("gate",))


def test_the_spare_is_killed(tmp_path: Path) -> None:
    walk(tmp_path, "in-place", "spare", ("stage",))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", ["agent", "holder", "worker"])
def test_each_process_in_each_phase(tmp_path: Path, part: str, mode: str) -> None:
    walk(tmp_path, mode, part, PHASES)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_spare_in_each_phase_in_which_it_is_one(tmp_path: Path, mode: str) -> None:
    walk(tmp_path, mode, "spare", PHASES[:4])


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_agent_at_any_moment_of_a_save(tmp_path: Path, mode: str) -> None:
    chance = random.Random(20)
    project = make_project(tmp_path, mode)
    with running(project) as up, reading(project), Steady(project.port) as steady:
        steps = Walk(project, up)
        for _ in range(20):
            word, agent = steps.next_word(), pids(project)["agent"]
            save(project, word)
            time.sleep(chance.uniform(0.0, 0.25))  # the moment itself is what is tried here
            kill(agent)
            converged(project, word)
            eventually(lambda: "agent" in pids(project))
        steady.stop()
        check_answers(steady, project)


# -- the session ----------------------------------------------------------------------------------


def session_walk(folder: Path, mode: str, phases: tuple[str, ...], *more: str) -> None:
    """Kill ``up`` (and what ``more`` names) in each phase; the next ``up`` takes over."""
    project = make_project(folder, mode)
    with running(project) as first, reading(project), Steady(project.port) as steady:
        steps = Walk(project, first)
        later: list[Up] = []
        try:
            for phase in phases:
                ours = pids(project)
                word = steps.save_until(phase)
                kill(*(ours[part] for part in ("session", *more)))
                steps.up.process.wait(60)
                eventually(lambda: "session" not in pids(project))
                if mode == "mirror":
                    eventually(lambda: is_whole(project), 60, "the tree stayed mixed")
                assert project.ask(timeout=30)
                if not more:
                    _says_that_no_session_is_there(project)
                if phase == "idle":
                    word = steps.next_word()
                    save(project, word)
                later.append(Up(project))
                steps.up = later[-1]
                steps.up.wait_state("live")
                converged(project, word)
                eventually(lambda: {"worker", "spare", "holder", "agent"} <= set(pids(project)), 90)
            steady.stop()
            check_answers(steady, project)
        finally:
            for up in later:
                up.end()


def _says_that_no_session_is_there(project: Project) -> None:
    status = project.json("status")["projects"][0]
    assert status["session"] is None
    assert [target["state"] for target in status["targets"]] == ["live"]
    assert "no session" in project.hb("status").stdout


@pytest.mark.parametrize("mode", MODES)
def test_up_is_killed_in_an_apply(tmp_path: Path, mode: str) -> None:
    session_walk(tmp_path, mode, ("apply",))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("more", [(), ("agent",)], ids=["alone", "with-agent"])
def test_up_in_each_phase(tmp_path: Path, mode: str, more: tuple[str, ...]) -> None:
    session_walk(tmp_path, mode, PHASES, *more)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("phase", ["idle", "apply", "reload"])
@pytest.mark.parametrize("parts", [("session",), ("session", "agent"), ("session", "holder"),
                                   ("session", "agent", "holder"), ("agent",)],
                         ids="+".join)
def test_down_ends_what_the_killed_ones_left(tmp_path: Path, parts: tuple[str, ...], phase: str,
                                             mode: str) -> None:
    project = make_project(tmp_path, mode)
    with running(project) as up:
        steps = Walk(project, up)
        ours = pids(project)
        steps.save_until(phase)
        kill(*(ours[part] for part in parts))
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


def test_down_ends_a_program_whose_port_somebody_else_took(tmp_path: Path) -> None:
    """Session, agent and holder were killed, and the port is another program's before ``down``."""
    project = make_project(tmp_path, "mirror")
    with running(project) as up:
        ours, program = pids(project), int(project.target()["pid"])
        kill(ours["session"], ours["agent"], ours["holder"])
        up.process.wait(60)
        assert os.path.isdir(f"/proc/{program}")
        with socket.create_server(("127.0.0.1", project.port)):
            down(project)
            assert not leftovers(project), leftovers(project)


# -- the program itself ---------------------------------------------------------------------------


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
@pytest.mark.parametrize("parts", [("agent",), ("session", "agent")], ids="+".join)
def test_the_agent_is_killed_while_the_program_is_frozen(tmp_path: Path,
                                                         parts: tuple[str, ...]) -> None:
    """The batch is large, so that there is time to hit it."""
    project = make_project(tmp_path, "mirror")
    with running(project) as up, Steady(project.port) as steady:
        ours, program = pids(project), int(project.target()["pid"])
        for number in range(1500):
            project.write(f"data/{number}", "x")
        save(project, "v2")
        assert await_frozen(program)
        kill(*(ours[part] for part in parts))
        eventually(lambda: is_whole(project))
        eventually(lambda: not is_stopped(program))
        assert project.ask(timeout=30).split()[0] in ("v1", "v2")
        later = Up(project) if "session" in parts else up
        try:
            converged(project, "v2")
            eventually(lambda: len(list((project.tree / "data").iterdir())) == 1500)
        finally:
            steady.stop()
            if later is not up:
                later.end()
        check_answers(steady, project)
