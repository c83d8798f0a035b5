"""Going back leads to what the target still has: it is asked, since it forgets by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory import MemoryProject, eventually

from hyperbox_agent.core.generation import State
from hyperbox_agent.errors import AgentError
from hyperbox_devcontainer.session.events import SHOWN_PATHS


async def test_what_the_target_has_forgotten_is_neither_offered_nor_asked_for(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    async with project.up() as session:
        await session.flush(20)
        for version in range(2, 7):
            project.write("ver.py", f'V = "v{version}"\n')
            await session.flush(20)
        numbers = sorted(project.agent.generations)
        assert len(numbers) == 6
        for number in (*numbers[:2], numbers[4]):
            del project.agent.generations[number]
        left = ", ".join(f"#{number}" for number in sorted(project.agent.generations))
        with pytest.raises(AgentError, match=rf"#{numbers[0]} is not kept \(kept: {left}\)"):
            await session.rollback(numbers[0])
        assert "rollback" not in project.agent.asked
        assert (await session.rollback(None))["number"] == numbers[3]


async def test_of_many_paths_that_differ_some_are_named_and_all_are_counted(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    async with project.up() as session:
        await session.flush(20)
        (first,) = project.agent.generations
        for number in range(200):
            project.write(f"m{number}.py", f"N = {number}\n")
        await session.flush(20)
        event = await session.rollback(first)
        assert event["differing"] == 200
        assert len(event["differs"]) == SHOWN_PATHS
        assert (await session.rollback(max(project.agent.generations)))["differs"] == []


async def rolled_back(project: MemoryProject) -> int:
    """A project at its second version, gone back to the first; gives that one's number."""
    async with project.up() as session:
        await session.flush(20)
        (first,) = project.agent.generations
        project.write("ver.py", 'V = "v2"\n')
        await session.flush(20)
        await session.rollback(first)
    return first


async def test_a_rollback_holds_over_a_lost_link_and_a_lost_session(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    first = await rolled_back(project)
    async with project.up() as session:
        await session.flush(20)
        links = project.agent.links
        assert project.target is not None
        project.target.cut_streams()
        await eventually(lambda: project.agent.links is not links)
        await session.flush(20)
        await session.flush(20)
        assert project.agent.serving == first
        (target,) = session.status()["targets"]
        assert (target["held"], target["pending"]) == (first, 1)
        project.agent.serving = None  # its program and its agent were ended
        project.target.cut_streams()
        await eventually(lambda: project.agent.serving == first)
        await session.flush(20)
        assert project.agent.serving == first
        project.write("ver.py", 'V = "v3"\n')
        await session.flush(20)
        assert project.there() == project.here()
        (target,) = session.status()["targets"]
        assert (target["held"], target["pending"]) == (None, 0)


async def test_a_save_that_no_session_saw_goes_forward(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    await rolled_back(project)
    project.write("ver.py", 'V = "v3"\n')
    async with project.up() as session:
        await session.flush(20)
        assert project.there() == project.here()


async def test_what_was_brought_down_begins_with_the_source(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    await rolled_back(project)
    async with project.up() as session:
        await session.stop()
    async with project.up() as session:
        await session.flush(20)
        assert project.there() == project.here()


async def test_what_answers_already_is_left_alone(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    async with project.up() as session:
        await session.flush(20)
        session.view.state = State.LIVE  # this target tells of no states
        (first,) = project.agent.generations
        event = await session.rollback(first)
        assert (event["already"], event["number"]) == (True, first)
        assert "rollback" not in project.agent.asked
        assert [row.get("rollback") for row in session.history(9)] == [None]


async def test_what_was_asked_for_is_in_the_history(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    first = await rolled_back(project)
    async with project.up() as session:
        newest, *_ = session.history(9)
        assert (newest["number"], newest["rollback"], newest["differing"]) == (first, True, 1)
