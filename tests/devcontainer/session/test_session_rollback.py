"""Going back leads to what the target still has: it is asked, since it forgets by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory import MemoryProject

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
