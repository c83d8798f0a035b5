"""A changed requirements file: the old environment serves until the new one has proved itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from journey import Project, Steady, tree_of
from wheelmaking import asks_for, make_environment, make_wheel

pytestmark = pytest.mark.needs("linux")

DEP_APP = '''\
import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        import dep, ver  # as late as a program can
        b = f"{ver.V} {dep.V}".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(b))); self.end_headers()
        self.wfile.write(b)
    def log_message(self, *a): pass
if os.path.exists("demands.txt"):
    import dep
    assert dep.V in open("demands.txt").read(), "it wants another dep"
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
'''
WHEEL = "./wheels/dep-{}-py3-none-any.whl"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path, git=False, command=["python", "app.py"])
    wheels = {version: make_wheel(project.root / "wheels", "dep", version)
              for version in ("1.0", "2.0")}
    project.write(".gitignore", ".venv/\n")
    project.write("app.py", DEP_APP)
    project.write("requirements.txt", asks_for(WHEEL.format("1.0")))
    make_environment(project.root / ".venv", wheels["1.0"])
    return project


def script_of(venv: Path) -> list[str]:
    """What the environment's console script says."""
    return subprocess.run([venv / "bin/dep"], check=True, text=True, capture_output=True,
                          timeout=60).stdout.split()


def test_the_new_one_takes_the_old_ones_place_when_it_is_live(project: Project) -> None:
    venv = project.root / ".venv"
    with project.up() as up, Steady(project.port) as steady:
        assert project.ask() == "v1 1.0"
        project.write("requirements.txt", asks_for(WHEEL.format("2.0")))
        done = up.wait_generation()
        assert (done["rung"], done["verdict"]) == ("reinstall", "committed")
        assert project.ask() == "v1 2.0"
        assert script_of(venv) == ["2.0", str(venv)]
        subprocess.run([venv / "bin/python", "-m", "pip", "check"], check=True, timeout=60)
        project.version("v2")
        assert project.hb("flush").returncode == 0
        assert project.ask() == "v2 2.0"
    assert not steady.failures
    assert set(steady.answers) <= {"v1 1.0", "v1 2.0", "v2 2.0"}
    assert not list(Path(project.env["XDG_STATE_HOME"]).glob("**/environment"))


def test_what_fails_leaves_the_environment_as_it_was(project: Project) -> None:
    venv = project.root / ".venv"
    with project.up(), Steady(project.port) as steady:
        before = tree_of(venv)
        project.write("requirements.txt", asks_for(WHEEL.format("2.0"), WHEEL.format("9.0")))
        assert project.hb("flush").returncode == 3  # the install fails
        assert tree_of(venv) == before
        project.write("demands.txt", "1.0")
        project.write("requirements.txt", asks_for(WHEEL.format("2.0")))
        assert project.hb("flush").returncode == 3  # it is installed, and the program won't have it
        assert "it wants another dep" in project.target()["error"]["message"]
        assert tree_of(venv) == before
        assert project.ask() == "v1 1.0"
        project.write("demands.txt", "2.0")
        assert project.hb("flush").returncode == 0
        assert project.ask() == "v1 2.0"
        assert tree_of(venv) != before
    assert not steady.failures


@pytest.mark.slow
def test_nothing_is_installed_into_a_python_that_is_not_the_projects(tmp_path: Path) -> None:
    others = tmp_path / "others"
    make_environment(others, make_wheel(tmp_path / "w", "dep", "1.0"))
    project = Project(tmp_path, git=False, command=["python", "app.py"])
    make_wheel(project.root / "wheels", "dep", "2.0")
    project.env["PATH"] = os.pathsep.join((str(others / "bin"), project.env["PATH"]))
    project.env.pop("VIRTUAL_ENV", None)
    project.write("app.py", DEP_APP)
    with project.up() as up:
        before = tree_of(others)
        project.write("requirements.txt", asks_for(WHEEL.format("2.0")))
        problem = up.wait(lambda event: event["event"] == "problem")
        assert "which is not this project's own" in problem["message"]
        assert problem["hint"].startswith("python3 -m venv .venv && .venv/bin/pip install ")
        assert project.hb("flush").returncode == 0
        assert tree_of(others) == before
        assert project.ask() == "v1 1.0"
