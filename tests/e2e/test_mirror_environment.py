"""A mirrored tree's program and environment are found, made and changed where they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from journey import Project
from wheelmaking import asks_for, make_wheel

pytestmark = pytest.mark.needs("linux")

DEP_APP = '''\
import http.server, os, sys, dep, ver
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        b = f"{ver.V} {dep.V} {sys.prefix}".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(b))); self.end_headers()
        self.wfile.write(b)
    def log_message(self, *a): pass
if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", 8000), H).serve_forever()
'''
FLASK_APP = '''\
import os, sys
from flask import Flask
app = Flask(__name__)
@app.get("/")
def index():
    return f"{os.getcwd()} {os.path.exists('.env')} {sys.prefix}"
'''


def mirrored(folder: Path, *, command: str = "", port: bool = True) -> Project:
    """A project of ``[sync] mode = "mirror"``, as docs/mirror.md has it."""
    project = Project(folder, git=False)
    project.write(".gitignore", ".venv/\n.env\nstatic/dist/\n")
    project.write("hyperbox.toml", '[sync]\nmode = "mirror"\n'
                                   'include = [".env", "static/dist/"]\npull = ["uv.lock"]\n'
                                   f"[app]\nport = {project.port}\n{command}")
    return project


def tree_of(project: Project) -> Path:
    """Where the tree is by default."""
    found = list(Path(project.env["XDG_STATE_HOME"]).glob("hyperbox/**/app.py"))
    assert len(found) == 1, found
    return found[0].parent


@pytest.mark.needs("flask")
def test_the_example_of_the_docs_comes_up_as_detected(tmp_path: Path) -> None:
    project = mirrored(tmp_path)
    project.write("app.py", FLASK_APP)
    project.write(".env", "X=1\n")
    (project.root / ".venv/bin").mkdir(parents=True)
    (project.root / ".venv/pyvenv.cfg").write_text("")
    with project.up() as up:
        where, has_env, _ = project.ask().split()
        assert Path(where) == tree_of(project) != project.root
        assert has_env == "True"
        told = [event for event in up.events if event["event"] == "detection"]
        assert told[-1]["framework"] == "flask"
        project.write("app.py", FLASK_APP.replace("getcwd()", "getcwd()[::-1]"))
        assert project.hb("flush").returncode == 0
        assert project.ask().split()[0][::-1] == where


@pytest.mark.slow  # pip is installed into it: seconds of work
def test_the_environment_is_made_and_changed_there(tmp_path: Path) -> None:
    project = mirrored(tmp_path, command='command = ["python", "app.py"]\n')
    for version in ("1.0", "2.0"):
        make_wheel(project.root / "wheels", "dep", version)
    project.write("app.py", DEP_APP)
    project.write("requirements.txt", asks_for("./wheels/dep-1.0-py3-none-any.whl"))
    with project.up() as up:
        tree = tree_of(project)
        assert project.ask() == f"v1 1.0 {tree}/.venv"
        first = up.wait_generation(first=True)
        assert "pip makes the environment of requirements.txt" in first["why"]
        project.write("requirements.txt", asks_for("./wheels/dep-2.0-py3-none-any.whl"))
        assert project.hb("flush").returncode == 0
        assert project.ask().startswith("v1 2.0 ")
        project.version("v2")  # a warm start, from the environment itself
        assert project.hb("flush").returncode == 0
        assert project.ask() == f"v2 2.0 {tree}/.venv"
        assert not list(tree.glob("../environment/*/lib/*/site-packages/dep-1.0*"))
    with project.up() as up:  # it stands there already
        assert project.ask() == f"v2 2.0 {tree}/.venv"
        assert up.wait_generation(first=True)["why"] == "first start"


def test_where_it_cannot_be_made_that_is_said(tmp_path: Path) -> None:
    project = mirrored(tmp_path, command='command = ["python", "app.py"]\n')
    project.write("uv.lock", "version = 1\n")
    if shutil.which("uv", path=project.env["PATH"]):
        project.write("pyproject.toml", "this is no toml\n")
    with project.up() as up:
        problem = up.wait(lambda event: event["event"] == "problem")
        assert "there is no environment for this tree: " in problem["message"]
        assert "uv" in problem["message"]
        assert problem["hint"]
        assert project.ask() == "v1"
