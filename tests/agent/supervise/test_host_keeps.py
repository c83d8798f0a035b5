"""How many older generations stay is said by the session, the newest one, and has one default."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.generation import Verdict
from hyperbox_agent.link.messages import Configure
from hyperbox_agent.store.pruning import Keep
from hyperbox_agent.supervise.host import Host, HostConfig

APP = {"name": "app", "command": ["sleep", "600"], "ready_after": 0.0}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(str(tmp_path / "home"), SystemClock(), lambda event: None)
    yield made
    await made.stop(fast=True)


def wanted(tmp_path: Path) -> HostConfig:
    return HostConfig("s", "p", "mirror", str(tmp_path / "tree"), APP)


async def bring(host: Host, numbers: range) -> None:
    """Generations that make one folder each."""
    for number in numbers:
        change = Change(f"d{number}", None, Entry(f"d{number}", Kind.DIR, 0o755))
        outcome = await host.generation(number, (change,), settled=True, first=number == 1)
        assert outcome.verdict is Verdict.COMMITTED, outcome.error


async def test_another_session_of_the_same_program_says_anew_how_many_stay(
        host: Host, tmp_path: Path) -> None:
    config = wanted(tmp_path)
    await host.configure(config)
    await bring(host, range(1, 7))
    assert list(await host.kept()) == [1, 2, 3, 4, 5, 6]
    await host.configure(replace(config, keep=Keep(2)))
    assert host.supervisor.serving == 6
    await bring(host, range(7, 9))
    kept = await host.kept()
    assert len(kept) <= 4
    assert kept[-1] == 8


def test_there_is_one_default(tmp_path: Path) -> None:
    asked = Configure("s", "p", "mirror", "/srv/p", {})
    silent = {key: value for key, value in asked.as_json().items()
              if not key.startswith("keep_")}
    assert asked.keep == Configure.from_json(silent).keep == wanted(tmp_path).keep == Keep()
