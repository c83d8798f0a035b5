"""B29: a wrapper, a grandchild, a daemon of two forks keep no port and outlive nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from journey import Project, Steady, eventually, processes

RUNNER = '''\
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "app.py"])
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))  # leaves its child behind, as npx did
sys.exit(child.wait())
'''
DAEMON = '''\
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.execv(sys.executable, [sys.executable, "app.py"])
'''
COMMANDS = {
    "shell": f"{sys.executable} app.py; true",
    "runner": [sys.executable, "runner.py"],
    "daemon": f"{sys.executable} daemon.py & sleep 600",
}
SIZES = {"shell": 2, "runner": 2, "daemon": 3}
"""Processes of one version."""


def of_the_program(project: Project) -> list[str]:
    """All that runs of the program's versions, found by the mark in their environment."""
    state = f"XDG_STATE_HOME={project.env['XDG_STATE_HOME']}"
    return [f"{pid} {line}" for pid, line, env in processes(state)
            if state in env and "HYPERBOX_INSTANCE=" in env and "worker.py" not in line]


def reload_often(folder: Path, kind: str, times: int) -> None:
    project = Project(folder, command=COMMANDS[kind])
    project.write("runner.py", RUNNER)
    project.write("daemon.py", DAEMON)
    with project.up() as up, Steady(project.port) as steady:
        for number in range(2, times + 2):
            mark = up.mark()
            project.version(f"v{number}")
            up.wait_generation(after=mark)
            assert project.ask() == f"v{number}"
        steady.stop()
        assert not steady.failures
        eventually(lambda: len(of_the_program(project)) == SIZES[kind],
                   message=f"{of_the_program(project)}")
    assert not of_the_program(project)


@pytest.mark.parametrize("kind", ["shell", "daemon"])
def test_b29_five_reloads_leave_one_version_and_down_leaves_none(
        tmp_path: Path, kind: str) -> None:
    reload_often(tmp_path, kind, 5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMMANDS)
def test_b29_twenty_reloads(tmp_path: Path, kind: str) -> None:
    reload_often(tmp_path, kind, 20)


def test_b29_sigterm_comes_first_and_the_wait_is_the_users(tmp_path: Path) -> None:
    project = Project(tmp_path, extra="grace = 20.0\n")
    note = tmp_path / "note"
    app = (project.root / "app.py").read_text()
    project.write("app.py", f'''\
import signal, sys, time
def bye(*_):
    open({str(note)!r}, "a").write("term ")
    time.sleep(0.3)
    open({str(note)!r}, "a").write("end ")
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
{app}''')
    with project.up():
        assert project.ask() == "v1"
    assert note.read_text() == "term end "
