"""B34: what the program writes into its own tree must not reload it for ever."""

from __future__ import annotations

import time
from pathlib import Path

from journey import Project

WRITING = '''\
import http.server, json, os, threading, time, ver
json.dump({"started": time.time()}, open("state.json", "w"))
os.makedirs("logs", exist_ok=True); os.makedirs("upload", exist_ok=True)
def log():
    while True:
        with open("logs/a.log", "a") as f: f.write("line\\n")
        time.sleep(0.1)
threading.Thread(target=log, daemon=True).start()
open("upload/x.py", "w").write("X = %r\\n" % time.time())
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        b = ver.V.encode()
        self.send_response(200); self.send_header("Content-Length", str(len(b))); self.end_headers()
        self.wfile.write(b)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
'''


def test_b34_one_reload_for_the_edit_and_none_for_the_programs_own_writes(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("app.py", WRITING)
    with project.up() as up:
        pid = project.target()["pid"]
        time.sleep(2.0)
        assert project.target()["pid"] == pid
        mark = up.mark()
        project.version("v2")
        up.wait_generation(after=mark)
        assert project.ask() == "v2"
        second = project.target()["pid"]
        assert second != pid
        time.sleep(2.0)
        assert project.target()["pid"] == second
        reloads = [one for one in up.generations() if one["rung"] in ("warm", "cold")]
        assert len(reloads) == 2, reloads
