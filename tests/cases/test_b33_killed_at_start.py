"""B33: a version that dies or hangs at its start looks like what it is, and the old one serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from journey import Project, Steady, eventually

KINDS = {
    "killed": ("import os, signal\nos.kill(os.getpid(), 9)\n", ["SIGKILL"]),
    "ends by itself": ("import os, time\ntime.sleep(0.2)\nos._exit(0)\n", ["exit status 0"]),
    "binds and never answers": ('''\
import os, socket, time
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
c = s.accept()
time.sleep(600)
''', ["no answer", "2 s"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_b33_the_reason_is_named_and_the_old_version_serves(tmp_path: Path, kind: str) -> None:
    text, words = KINDS[kind]
    project = Project(tmp_path, extra="start_timeout = 2.0\n")
    with project.up() as up:
        with Steady(project.port) as steady:
            mark = up.mark()
            project.write("ver.py", text)
            broken = up.wait_generation("rolled_back", after=mark)
            for word in words:
                assert word in broken["error"]["message"], broken["error"]
            assert (broken["error"]["phase"], broken["serving"]) == ("health", 1)
            flush = project.hb("flush")
            assert flush.returncode == 3
            target = project.target()
            assert (target["state"], target["number"]) == ("live", 1)
            assert words[0] in target["error"]["message"]
            assert project.ask() == "v1"
            mark = up.mark()
            project.version("v3")
            up.wait_generation(after=mark)
            assert project.ask() == "v3"
        assert not steady.failures
        assert set(steady.answers) <= {"v1", "v3"}


def test_b33_a_first_version_that_is_killed_is_broken_until_it_is_mended(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("ver.py", KINDS["killed"][0])
    with project.up(live=False) as up:
        state = up.wait_state("broken")
        assert state["number"] is None or project.target()["state"] == "broken"
        broken = up.wait(lambda e: e.get("event") == "generation")
        assert broken["verdict"] == "rolled_back"
        assert "SIGKILL" in broken["error"]["message"]
        project.version("v2")
        up.wait_state("live")
        eventually(lambda: project.ask() == "v2")
