"""B35: a reload comes while the program rewrites a file of its own: SIGTERM, then the grace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from journey import Project, Steady

APP = '''\
import http.server, os, signal, threading, ver
busy = threading.Lock()
def finish():
    with busy:
        os._exit(0)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=finish).start())
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        with busy:
            with open("data/opts.json", "w") as file:
                for part in ['{"v": "', *["x" * 10_000] * 100, '"}']:
                    file.write(part)
                    file.flush()
        b = ver.V.encode()
        self.send_response(200); self.send_header("Content-Length", str(len(b)))
        self.end_headers(); self.wfile.write(b)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
'''


def edit_under_load(folder: Path, edits: int) -> None:
    # Versions that write the same file must not overlap.
    project = Project(folder, extra="grace = 20.0\n[reload]\noverlap = false\n")
    project.write(".gitignore", "data/\n")
    project.write("data/opts.json", '{"v": ""}')
    project.write("app.py", APP)
    with project.up() as up, Steady(project.port) as steady:
        for number in range(2, edits + 2):
            mark = up.mark()
            project.version(f"v{number}")
            up.wait_generation(after=mark)
        assert project.ask(timeout=20) == f"v{edits + 1}"
        steady.stop()
        assert not steady.failures
        retired = [event for event in up.events if event["event"] == "retired"]
        assert not [event for event in retired if event["killed"]]
    assert len(json.loads((project.root / "data/opts.json").read_text())["v"]) == 1_000_000


def test_b35_the_file_is_never_cut_and_no_request_fails(tmp_path: Path) -> None:
    edit_under_load(tmp_path, 5)


@pytest.mark.slow
def test_b35_twenty_edits_under_load(tmp_path: Path) -> None:
    edit_under_load(tmp_path, 20)


def test_b35_a_grace_that_ran_out_is_said(tmp_path: Path) -> None:
    project = Project(tmp_path, extra="grace = 0.2\n")
    app = (project.root / "app.py").read_text()
    project.write("app.py", f"import signal\nsignal.signal(15, signal.SIG_IGN)\n{app}")
    with project.up() as up:
        mark = up.mark()
        project.version("v2")
        up.wait_generation(after=mark)
        retired = up.wait(lambda e: e.get("event") == "retired", after=mark)
        assert (retired["number"], retired["killed"], retired["left"]) == (1, 1, [])
        assert project.ask() == "v2"
