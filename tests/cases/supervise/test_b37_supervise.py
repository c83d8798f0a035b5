"""B37: stdin belongs to the program; at its end nothing stops and nothing spins."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AGENT = """\
import asyncio, json, os, sys
sys.path[:0] = json.loads(sys.argv[2])
if sys.argv[3] == "closed":
    os.close(0)
from hyperbox_agent.clock import SystemClock
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.supervisor import Supervisor
from hyperbox_langpacks.base import Command, Detection, Rung, RungChoice
from hyperbox_langpacks.view import FolderView

async def yes():
    return True

async def main():
    what = json.loads(sys.argv[1])
    config = AppConfig.from_json(what["app"])
    found = Detection("none", Command(config.command), "a test", 1.0)
    said = []
    supervisor = Supervisor(config, None, found, FolderView(what["root"]), what["home"],
                            clock=SystemClock(), sink=said.append)
    await supervisor.open()
    for number in (1, 2):
        done = await supervisor.reload(number, RungChoice(Rung.COLD, "a test"),
                                       root=what["root"], permit=yes)
        assert done.ok, done
    await supervisor.feed(b"a line\\n")
    while not any(event.get("text") == "read a line" for event in said):
        await asyncio.sleep(0.02)
    pid = supervisor.status()["pid"]
    def ticks():
        fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    before = ticks()
    await asyncio.sleep(0.3)
    print(json.dumps({"state": supervisor.status()["state"], "idle": ticks() - before <= 5}))
    await supervisor.stop()

asyncio.run(main())
"""

APP = """\
import sys
print("up", flush=True)
for line in sys.stdin:
    print("read", line.strip(), flush=True)
"""


@pytest.mark.parametrize("stdin", ["closed", "null"])
async def test_the_program_reads_lines_whatever_our_own_input_is(
        program: Any, helpers: Any, stdin: str) -> None:
    program.write(app=APP)
    app = {"command": [sys.executable, "app.py"], "ready": "up"}
    what = {"app": app, "root": str(program.root), "home": str(program.home)}
    paths = [path for path in sys.path if path.endswith("src")] or sys.path

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", AGENT, json.dumps(what), json.dumps(paths), stdin],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            env=dict(os.environ), check=False)

    done = await asyncio.to_thread(run)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"state": "live", "idle": True}
    assert not list(Path(program.home, "run").glob("*.sock"))
