"""``kill -9`` of each of our processes in each phase of a save, in place and mirrored.

Whatever is killed: none of a steady client's requests fails (but what was in flight through a
killed port holder or program), the tree is of one generation, the newest save goes live, and
``down`` leaves nothing.
"""

from __future__ import annotations

import random
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from journey import Steady, eventually
from killing import (
    MODES,
    PHASES,
    Walk,
    await_all,
    check_answers,
    converged,
    kill,
    make_project,
    pids,
    reading,
    running,
    save,
)

CUTTING = frozenset({"holder", "program", "spare"})
"""Parts through which a client's bytes go, or may go by the time they are killed."""


def walk(folder: Path, mode: str, parts: str, phases: tuple[str, ...]) -> None:
    """Kill ``parts`` (joined by ``+``) in each phase."""
    project, names = make_project(folder, mode), parts.split("+")
    # Without both agent and holder nobody holds the port for a moment; without the agent the holder
    # does not know whether a program that is gone will come back.
    client = nullcontext() if "agent" in names and {"holder", "program"} & set(names) else Steady(
        project.port)
    with running(project) as up, reading(project), client as steady:
        steps = Walk(project, up)
        for phase in phases:
            steps.strike(names, phase)
            # The next one shall find all of them again.
            await_all(project)
        if steady is not None:
            steady.stop()
            check_answers(steady, project, cuts=len(phases) if CUTTING & set(names) else 0)
        assert up.process.poll() is None


def test_the_agent_is_killed_in_a_reload(tmp_path: Path) -> None:
    walk(tmp_path, "mirror", "agent", ("reload",))


def test_the_port_holder_is_killed(tmp_path: Path) -> None:
    walk(tmp_path, "in-place", "holder", ("idle",))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("parts", ["agent", "holder", "worker", "spare", "program",
                                   "agent+holder", "agent+worker", "agent+program",
                                   "holder+program"])
def test_each_process_in_each_phase(tmp_path: Path, parts: str, mode: str) -> None:
    walk(tmp_path, mode, parts, PHASES)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", ["agent", "holder", "worker", "program"])
def test_one_at_any_moment_of_a_save(tmp_path: Path, part: str, mode: str) -> None:
    chance = random.Random(20)
    project = make_project(tmp_path, mode)
    with running(project) as up, reading(project), Steady(project.port) as steady:
        steps = Walk(project, up)
        for _ in range(20):
            word, ours = steps.next_word(), pids(project)
            save(project, word)
            time.sleep(chance.uniform(0.0, 0.25))  # the moment itself is what is tried here
            # A worker that died several times is not replaced before the next save needs one.
            kill(*(ours[name] for name in (part,) if name in ours))
            converged(project, word)
            if part != "worker":
                eventually(lambda: part in pids(project), 90)
        await_all(project)
        steady.stop()
        check_answers(steady, project, cuts=20 if part in CUTTING else 0)
