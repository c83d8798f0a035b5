"""B08: branches flipped again and again end at the last one, and no version is ever mixed."""

from __future__ import annotations

import http.client
import sys
import threading
import time
from pathlib import Path

import pytest
from journey import PATIENCE, Project, tree_of

FILES = 600
FLIPS = 10

APP = f'''\
import http.server, os, pathlib
root = pathlib.Path(__file__).parent / "many"
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        seen = set()
        for number in range(0, {FILES}, 20):
            try: seen.add((root / f"s{{number % 9}}/f{{number}}").read_text())
            except FileNotFoundError: seen.add("missing")
        body = ",".join(sorted(seen)).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body)))
        self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
'''


class Reader(threading.Thread):
    """Collects what the program reads of the tree, request by request."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.bodies: set[str] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.01):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            connection.request("GET", "/")
            self.bodies.add(connection.getresponse().read().decode())
            connection.close()


@pytest.mark.needs("git")
def test_b08_flipping_branches(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror", command=[sys.executable, "app.py"])
    project.write("app.py", APP)
    for branch in ("a", "b"):
        for number in range(FILES):
            project.write(f"many/s{number % 9}/f{number}", branch)
        project.write(f"only_{branch}.py", "")
        project.git("checkout", "-q", *(("-b", branch) if branch == "a" else ("-b", branch, "a")))
        if branch == "b":
            (project.root / "only_a.py").unlink()
        project.git("add", "-A")
        project.git("commit", "-qm", branch)
    project.git("checkout", "-q", "a")
    with project.up() as up:
        up.wait(lambda event: bool(event.get("first")))
        mark = up.mark()
        reader = Reader(project.port)
        reader.start()
        for _ in range(FLIPS):
            project.git("checkout", "-q", "b")
            time.sleep(0.1)
            project.git("checkout", "-q", "a")
        project.git("checkout", "-q", "b")
        assert project.hb("flush", timeout=120).returncode == 0
        reader.stop.set()
        reader.join()
        here, there = tree_of(project.root), tree_of(project.tree)
        assert [path for path in {*here, *there} if here.get(path) != there.get(path)] == []
        assert project.ask() == "b"
        # Never one with files of both: neither as a reader saw it nor as the history has it.
        assert reader.bodies <= {"a", "b"}
        made = [event for event in up.events[mark:] if event["event"] == "generation"]
        committed = [event for event in made if event["verdict"] == "committed"]
        assert 1 <= len(committed) < 2 * FLIPS + 1
        assert not [event for event in made if event["verdict"] == "rolled_back"]
        whole = FILES + 2
        assert [(event["number"], event["files"], [path for path in event["paths"]
                                                   if not path.startswith(("many/", "only"))])
                for event in committed if event["files"] != whole] == []
