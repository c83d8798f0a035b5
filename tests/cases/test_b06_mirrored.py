"""B06: a rename is one generation, the old name is gone, also when nobody watched."""

from __future__ import annotations

from pathlib import Path

import pytest
from journey import Project, same_trees

APP = '''\
import http.server, os, pathlib, importlib
names = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("h/*.py"))
body = ",".join(importlib.import_module(f"h.{name}").NAME for name in names).encode()
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", str(len(body)))
        self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
'''


@pytest.mark.needs("git")
def test_b06_renames(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror")
    project.write("app.py", APP)
    project.write("h/one.py", 'NAME = "one"\n')
    project.write("h/two.py", 'NAME = "two"\n')
    for number in range(500):
        project.write(f"data/sub{number % 7}/f{number}", f"{number}")
    project.git("add", ".")
    project.git("commit", "-qm", "x")
    with project.up() as up:
        assert project.ask() == "one,two"
        project.git("mv", "h/one.py", "h/uno.py")
        assert project.hb("flush").returncode == 0
        assert project.ask() == "two,one"
        generation, = [event for event in up.generations()
                       if not event.get("first") and event["verdict"] != "superseded"]
        assert sorted(generation["paths"]) == ["h/one.py", "h/uno.py"]
        # It travels as a rename: the content is on the target already.
        assert generation["bytes"] < 100
        assert not list(project.tree.glob("h/**/one*"))
    (project.root / "data").rename(project.root / "moved")
    with project.up():
        assert project.ask() == "two,one"
        assert not (project.tree / "data").exists()
        assert same_trees(project.root, project.tree)
        # And the new names are watched.
        project.write("moved/sub3/f3", "edited")
        assert project.hb("flush").returncode == 0
        assert (project.tree / "moved/sub3/f3").read_text() == "edited"
