"""A program is taken on wholly or not at all, by one call at a time."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.generation import Verdict
from hyperbox_agent.errors import PortError
from hyperbox_agent.supervise.host import Host, HostConfig, Ready
from hyperbox_agent.supervise.mend import mark_of


@pytest.fixture
def events() -> list[Mapping[str, Any]]:
    """What the host told."""
    return []


@pytest.fixture
async def host(tmp_path: Path, events: list[Mapping[str, Any]]) -> AsyncIterator[Host]:
    made = Host(str(tmp_path / "home"), SystemClock(), events.append)
    yield made
    await made.stop(fast=True)


def wanted(tmp_path: Path, port: int) -> HostConfig:
    root = tmp_path / "tree"
    root.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    return HostConfig("s", "p", "in-place", str(root), {
        "name": "app", "command": command, "port": port, "start_timeout": 60.0})


async def first(host: Host) -> None:
    outcome = await host.generation(1, (), settled=True, first=True)
    assert outcome.verdict is Verdict.COMMITTED, outcome.error


async def test_a_program_that_could_not_be_taken_on_is_taken_on_by_the_next_call(
        host: Host, tmp_path: Path, helpers: Any) -> None:
    config = wanted(tmp_path, helpers.free_port())
    with socket.create_server(("127.0.0.1", config.app["port"])):
        with pytest.raises(PortError):
            await host.configure(config)
        assert host.config is None
        assert host.status() == {"configured": False}
    await host.configure(config)
    await first(host)


async def test_what_a_dead_agent_left_runs_on_where_it_can_not_be_taken_over_now(
        host: Host, tmp_path: Path, helpers: Any) -> None:
    config = wanted(tmp_path, helpers.free_port())
    mark = f"{mark_of(host.home)}-1"
    left = subprocess.Popen(["sleep", "600"], env={**os.environ, "HYPERBOX_INSTANCE": mark})
    try:
        with socket.create_server(("127.0.0.1", config.app["port"])):
            with pytest.raises(PortError):
                await host.configure(config)
            await host.stop(fast=True)
        assert left.poll() is None
    finally:
        left.kill()
        left.wait()


async def test_two_sessions_that_configure_at_once_get_one_program(
        host: Host, tmp_path: Path, helpers: Any) -> None:
    """The link of the first was lost in the middle of its call, which goes on."""
    config = wanted(tmp_path, helpers.free_port())
    made: list[Ready] = await asyncio.gather(host.configure(config), host.configure(config))
    assert [one.serving for one in made] == [None, None]
    await first(host)
    assert (await host.configure(config)).serving == 1


async def test_a_session_that_comes_later_hears_what_answers(
        host: Host, tmp_path: Path, helpers: Any, events: list[Mapping[str, Any]]) -> None:
    config = wanted(tmp_path, helpers.free_port())
    await host.configure(config)
    await host.configure(config)
    assert events == []
    await first(host)
    live = [event for event in events if event["event"] == "state"][-1]
    assert live["state"] == "live"
    events.clear()
    await host.configure(config)
    assert [event for event in events if event["event"] == "state"] == [live]


async def test_a_stop_waits_for_a_program_that_is_being_taken_on(
        host: Host, tmp_path: Path, helpers: Any) -> None:
    config = wanted(tmp_path, helpers.free_port())
    configuring = asyncio.ensure_future(host.configure(config))
    await asyncio.sleep(0)
    await host.stop(fast=True)
    await configuring
    assert host.config is None
    with socket.create_server(("127.0.0.1", config.app["port"])):
        pass
