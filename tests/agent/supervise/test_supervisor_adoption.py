"""The agent is killed; the program goes on; the next agent takes it over or ends it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.supervise import procfs
from hyperbox_langpacks.base import Command, FileChange, Rung
from hyperbox_langpacks.python.pack import PythonPack

AGENT = """\
import asyncio, json, os, sys
sys.path[:0] = json.loads(sys.argv[2])
from hyperbox_agent.clock import SystemClock
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.supervisor import Supervisor
from hyperbox_langpacks.base import Command, Detection, Rung, RungChoice
from hyperbox_langpacks.python.pack import PythonPack
from hyperbox_langpacks.view import FolderView

async def yes():
    return True

async def main():
    what = json.loads(sys.argv[1])
    config = AppConfig.from_json(what["app"])
    view = FolderView(what["root"])
    pack = found = None
    found = Detection("none", Command(config.command), "a test", 1.0)
    if what["pack"]:
        pack = PythonPack()
        found = pack.complete(view, os.environ, found.command)
    supervisor = Supervisor(config, pack, found, view, what["home"], clock=SystemClock(),
                            sink=lambda event: None)
    await supervisor.open()
    for number in (1, 2):
        if what["pack"] and number == 2:
            while not supervisor.status()["warm"]["ready"]:
                await asyncio.sleep(0.02)
        done = await supervisor.reload(number, RungChoice(Rung.WARM, "a test"),
                                       root=what["root"], permit=yes)
        assert done.ok, done
    while what["pack"] and not supervisor.status()["warm"]["ready"]:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    print(json.dumps(supervisor.status()), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Agent:
    """An agent in a process of its own."""

    def __init__(self, program: Any, *, pack: bool = False, **app: Any) -> None:
        self.app = {"command": [os.path.realpath(sys.executable), "app.py"],
                    "port": program.port, "grace": 2.0, "drain": 0.5, **app}
        what = {"app": self.app, "root": str(program.root), "home": str(program.home),
                "pack": pack}
        paths = [path for path in sys.path if path.endswith("src")] or sys.path
        bin_dir = os.path.dirname(os.path.realpath(sys.executable))
        env = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT, json.dumps(what), json.dumps(paths)],
            stdout=subprocess.PIPE, env=env)
        self.status: dict[str, Any] = {}

    async def ready(self) -> None:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        self.status = json.loads(line)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def agents() -> Iterator[list[Agent]]:
    made: list[Agent] = []
    yield made
    for agent in made:
        agent.kill()  # and close its pipe, though it may have ended by itself


def gone(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is None or not stat.alive


TALKING = """\
import threading, time, os, ver
def talk():
    number = 0
    while True:
        print("tick", number, flush=True)
        number += 1
        time.sleep(0.02)
threading.Thread(target=talk, daemon=True).start()
"""


async def dead_agent(agents: list[Agent], program: Any, **more: Any) -> Agent:
    agent = Agent(program, **more)
    agents.append(agent)
    await agent.ready()
    agent.kill()
    return agent


def successor(program: Any, agent: Agent, **more: Any) -> Any:
    config = {**agent.app, "command": tuple(agent.app["command"]), **more}
    return program.supervisor(**{"start_timeout": 30.0, **config})


@pytest.mark.parametrize("port", [True, False])
async def test_the_program_goes_on_and_is_taken_over_with_its_output(
        program: Any, helpers: Any, agents: list[Agent], port: bool) -> None:
    app = TALKING + (helpers.base_app if port else "print('up', flush=True)\ntime.sleep(600)\n")
    program.write(app=app)
    more = {} if port else {"port": None, "ready": "up"}
    agent = await dead_agent(agents, program, **more)
    pid = agent.status["pid"]
    await asyncio.sleep(0.3)
    assert procfs.read_stat(pid) is not None
    if port:
        assert await program.ask() == "v1"
    supervisor = successor(program, agent)
    adopted = await supervisor.open()
    assert adopted is not None
    assert (adopted.number, adopted.pid, adopted.root) == (2, pid, str(program.root))
    assert supervisor.serving == 2
    assert supervisor.status()["state"] == "live"
    await helpers.until(lambda: len(program.texts("stdout", 2)) > 10)
    ticks = [int(text.split()[1]) for text in program.texts("stdout", 2)
             if text.startswith("tick ")]
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks))), "output was lost"
    if port:
        assert await program.ask() == "v1"
    program.write(ver="V = 'v3'\n")
    assert (await program.reload(supervisor, 3)).ok
    if port:
        assert await program.ask() == "v3"
    await helpers.until(lambda: gone(pid))
    await supervisor.stop()
    assert program.marked() == []


async def test_a_warm_program_is_taken_over_and_worker_and_spare_are_gone(
        program: Any, helpers: Any, agents: list[Agent]) -> None:
    agent = Agent(program, pack=True)
    agents.append(agent)
    await agent.ready()
    assert agent.status["rung"] == "warm"
    worker, spare = agent.status["warm"]["worker"], agent.status["warm"]["spare"]
    agent.kill()

    # They notice by themselves that nobody holds the other end.
    await helpers.until(lambda: gone(worker) and gone(spare))
    assert await program.ask() == "v1"
    supervisor = successor(program, agent)
    adopted = await supervisor.open()
    assert adopted is not None
    assert adopted.rung is Rung.WARM
    assert await program.ask() == "v1"


async def test_what_an_adopted_program_had_loaded_before_is_not_taken_for_unread(
        program: Any, helpers: Any, agents: list[Agent]) -> None:
    program.write(late="", app=helpers.base_app.replace(
        "        b = ver.V",
        "        if self.path == '/late':\n            import late\n        b = ver.V"))
    agent = await dead_agent(agents, program, pack=True)
    pack = PythonPack()
    command = tuple(agent.app["command"])
    found = pack.complete(program.view, os.environ, Command(command))
    supervisor = successor(program, agent, pack=pack, found=found)
    assert await supervisor.open() is not None
    # Its shim goes on telling, but not again what it has told the agent that is dead.
    assert await program.ask("/late") == "v1"
    await helpers.until(lambda: "late.py" in supervisor._service.live.learned.files)
    choice = supervisor.choose((FileChange("ver.py", "modified"),))
    assert choice.rung >= Rung.WARM, choice.why
    assert (await program.reload(supervisor, 3)).ok
    await helpers.until(lambda: "ver.py" in supervisor._service.live.learned.files)
    choice = supervisor.choose((FileChange("unused.py", "modified"),))
    assert choice.rung is Rung.NOTHING, choice.why


async def test_what_is_no_longer_wanted_is_ended(
        program: Any, helpers: Any, agents: list[Agent]) -> None:
    agent = await dead_agent(agents, program)
    unwritten = Path(program.home, "run", "c7.sock")
    with socket.socket(socket.AF_UNIX) as control:  # of a version that it was about to start
        control.bind(str(unwritten))
    supervisor = successor(program, agent, env={"OTHER": "1"})
    assert await supervisor.open() is None
    assert program.marked() == []
    assert not unwritten.exists()
    assert (await program.reload(supervisor, 5)).ok
    assert await program.ask() == "v1"


async def test_a_dead_program_of_a_dead_agent_is_not_taken_over(
        program: Any, helpers: Any, agents: list[Agent]) -> None:
    agent = await dead_agent(agents, program)
    pid = agent.status["pid"]
    os.kill(pid, signal.SIGKILL)
    await helpers.until(lambda: gone(pid))
    supervisor = successor(program, agent)
    assert await supervisor.open() is None
    assert supervisor.serving is None
    assert (await program.reload(supervisor, 5)).ok


async def test_an_adopted_program_that_dies_is_started_again(
        program: Any, helpers: Any, agents: list[Agent], fast_clock: Any) -> None:
    agent = await dead_agent(agents, program)
    supervisor = successor(program, agent, clock=fast_clock)
    assert await supervisor.open() is not None
    os.kill(agent.status["pid"], signal.SIGKILL)
    await helpers.until(lambda: program.states()[-2:] == ["broken", "live"])
    assert await program.ask() == "v1"


async def test_a_damaged_note_of_a_dead_agent_is_no_hindrance(
        program: Any, helpers: Any, agents: list[Agent]) -> None:
    agent = await dead_agent(agents, program)
    Path(program.home, "run", "instances.json").write_text("{")
    supervisor = successor(program, agent)
    assert await supervisor.open() is None
    assert (await program.reload(supervisor, 1)).ok
    assert await program.ask() == "v1"
