"""The version that was just replaced takes the port back while the rest of a save is on its way."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from hyperbox_agent.supervise import standby
from hyperbox_langpacks.base import Rung


async def half_a_save(program: Any) -> Any:
    """A supervisor with version 1, and version 2 in its place with 1 kept."""
    supervisor = program.supervisor()
    await supervisor.open()
    assert (await program.reload(supervisor, 1)).ok
    program.write(ver="V = 'v2'\n")
    assert (await program.reload(supervisor, 2, keep_old=True)).ok
    return supervisor


async def answers(program: Any, body: str) -> None:
    while await program.ask() != body:
        await asyncio.sleep(0.01)


async def test_it_answers_until_the_whole_save_is_live(
        program: Any, helpers: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(standby, "READY", 60.0)
    supervisor = await half_a_save(program)
    assert await program.ask() == "v2"
    assert await supervisor.step_back()
    assert (await program.ask(), supervisor.serving) == ("v1", 1)
    program.write(ver="V = 'v3'\n")
    assert (await program.reload(supervisor, 3)).ok
    assert (await program.ask(), supervisor.serving) == ("v3", 3)
    await helpers.until(lambda: len(program.marked()) == 1)
    assert not await supervisor.step_back()


async def test_a_rest_that_comes_to_nothing_brings_the_newer_one_back(
        program: Any, helpers: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(standby, "READY", 60.0)
    supervisor = await half_a_save(program)
    assert await supervisor.step_back()
    program.write(ver="raise ValueError('no')\n")
    assert not (await program.reload(supervisor, 3)).ok
    await supervisor.step_forward()
    assert (await program.ask(), supervisor.serving) == ("v2", 2)
    await helpers.until(lambda: len(program.marked()) == 1)


async def test_what_starts_no_process_belongs_to_the_newer_one(
        program: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(standby, "READY", 60.0)
    supervisor = await half_a_save(program)
    assert await supervisor.step_back()
    assert (await program.reload(supervisor, 3, Rung.NOTHING)).ok
    assert (await program.ask(), supervisor.serving) == ("v2", 3)


async def test_nothing_more_on_its_way_means_forward_again(
        program: Any, helpers: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(standby, "READY", 60.0)
    supervisor = await half_a_save(program)
    assert await supervisor.step_back()
    await asyncio.wait_for(answers(program, "v2"), 30)
    assert supervisor.serving == 2


async def test_what_is_taken_back_after_a_long_start_means_forward_again(
        program: Any, helpers: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(standby, "READY", 60.0)
    supervisor = await half_a_save(program)
    assert await supervisor.step_back()
    program.write(ver="import time\ntime.sleep(600)\n")

    async def later() -> None:
        await asyncio.sleep(3 * standby.PATIENCE)

    gone = await program.reload(supervisor, 3, taken_back=later)
    assert gone.superseded
    await asyncio.wait_for(answers(program, "v2"), 30)


async def test_its_death_means_forward_again(
        program: Any, helpers: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(standby, "READY", 60.0)
    monkeypatch.setattr(standby, "PATIENCE", 60.0)
    supervisor = await half_a_save(program)
    assert await supervisor.step_back()
    os.kill(supervisor.status()["pid"], signal.SIGKILL)
    await asyncio.wait_for(answers(program, "v2"), 30)
    assert supervisor.serving == 2
    assert supervisor.status()["state"] == "live"


async def test_it_is_ended_when_nothing_followed(program: Any, helpers: Any) -> None:
    supervisor = await half_a_save(program)
    await helpers.until(lambda: len(program.marked()) == 1)
    assert not await supervisor.step_back()
    assert await program.ask() == "v2"


async def test_stopping_ends_both(program: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(standby, "READY", 60.0)
    supervisor = await half_a_save(program)
    assert await supervisor.step_back()
    await asyncio.wait_for(supervisor.stop(), 30)
    assert program.marked() == []
