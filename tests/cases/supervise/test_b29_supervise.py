"""B29: a grandchild keeps the port. The whole tree is ended at each reload."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

PYTHON = sys.executable

WRAPPER = """\
import subprocess, sys, signal
child = subprocess.Popen([sys.executable, "app.py"])
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))   # leaves its child behind, as npx did
sys.exit(child.wait())
"""

DAEMON = """\
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.execv(sys.executable, [sys.executable, "app.py"])
"""


async def many_reloads(program: Any, helpers: Any, supervisor: Any, each: int) -> None:
    await supervisor.open()
    for number in range(1, 9):
        program.write(ver=f"V = 'v{number}'\n")
        done = await program.reload(supervisor, number)
        assert done.ok, done.error
        assert await program.ask() == f"v{number}"
    await helpers.until(lambda: supervisor.status()["draining"] == 0)
    assert len(program.marked()) == each
    await supervisor.stop()
    assert program.marked() == []


async def test_a_shell_around_the_server(program: Any, helpers: Any) -> None:
    supervisor = program.supervisor(command=f"{PYTHON} app.py; true")
    await many_reloads(program, helpers, supervisor, 2)


async def test_a_runner_that_leaves_its_child_behind(program: Any, helpers: Any) -> None:
    program.write(wrapper=WRAPPER)
    supervisor = program.supervisor(command=(PYTHON, "wrapper.py"))
    await many_reloads(program, helpers, supervisor, 2)


async def test_a_daemon_that_forks_twice_with_a_session_of_its_own(
        program: Any, helpers: Any, tmp_path: Path) -> None:
    program.write(daemon=DAEMON)
    # The first process waits, else its exit would be the program's: daemons are run so by shells.
    command = f"{PYTHON} daemon.py & sleep 600"
    supervisor = program.supervisor(command=command)
    await many_reloads(program, helpers, supervisor, 3)


@pytest.mark.needs("linux")
async def test_sigterm_comes_first_and_the_wait_is_the_users(
        program: Any, helpers: Any, tmp_path: Path) -> None:
    note = tmp_path / "note"
    program.write(app="import signal, sys, time\n"
                      "def bye(*a):\n"
                      f"    open({str(note)!r}, 'a').write('term ')\n"
                      "    time.sleep(0.4)\n"
                      f"    open({str(note)!r}, 'a').write('end ')\n"
                      "    sys.exit(0)\n"
                      "signal.signal(15, bye)\n" + helpers.base_app.replace(
                          ".serve_forever()", "").replace("http.server.Threading", "s = http.server"
                                                          ".Threading") + "s.serve_forever()\n")
    supervisor = program.supervisor(grace=30.0)
    await supervisor.open()
    await program.reload(supervisor, 1)
    await supervisor.stop()
    assert note.read_text() == "term end "
    assert os.listdir(program.home / "run") == []
