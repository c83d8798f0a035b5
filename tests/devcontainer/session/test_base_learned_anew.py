"""A batch is against what the target holds, or it is refused and what is there is learned anew."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memory import MemoryProject, eventually

from hyperbox_agent.errors import BaseChangedError
from hyperbox_agent.link.connection import Request


async def test_a_tree_that_went_on_unseen_is_learned_and_converges(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    async with project.up() as session:
        await session.flush(20)
        agent = project.agent
        went_on = {**agent.tree, "old.py": replace(agent.tree["ver.py"], path="old.py")}
        del went_on["app.py"]
        agent._commit(agent.number + 5, went_on)
        unseen = agent.number
        project.write("ver.py", 'V = "v2"\n')
        await eventually(lambda: project.there() == project.here())
        await session.flush(20)
        assert project.there() == project.here(), "neither the lost file nor the strange one stays"
        assert agent.number > unseen, "a number is never used twice"
    last = project.generations()[-1]
    assert (last["verdict"], last["files"]) == ("committed", 3)
    assert agent.asked.count("manifest") == 2


async def test_what_is_refused_in_spite_of_that_is_an_error_and_no_endless_loop(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)

    async def refuse(request: Request) -> Mapping[str, Any]:
        raise BaseChangedError("the target holds #7, not #7", base=7, holds=7)

    async with project.up() as session:
        await session.flush(20)
        project.agent.answer("generation", refuse)
        project.write("ver.py", 'V = "v2"\n')
        await eventually(lambda: any(event["verdict"] == "rolled_back"
                                     for event in project.generations()))
        await session.flush(20)
        asked = project.agent.asked.count("generation")
        await asyncio.sleep(0.2)
        assert project.agent.asked.count("generation") == asked
        last = project.generations()[-1]
        assert last["error"]["message"] == "the target holds #7, not #7"


async def test_a_content_that_the_program_destroyed_is_sent_whole(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    lines = [f"line {number} of many\n" for number in range(500)]
    project.write("long.txt", "".join(lines))
    async with project.up() as session:
        await session.flush(20)
        del project.agent.store[project.agent.tree["long.txt"].digest]
        project.write("long.txt", "".join([*lines, "one more\n"]))
        await session.flush(20)
        assert project.there() == project.here()
        whole = project.generations()[-1]
        project.write("long.txt", "".join([*lines, "two more\n"]))
        await session.flush(20)
    assert {event["verdict"] for event in project.generations()} <= {"committed", "superseded"}
    assert whole["bytes"] > 1000
    assert project.generations()[-1]["bytes"] < 200, "and after that deltas do again"
