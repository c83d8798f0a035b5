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

DATABASE = '''\
import http.server, os, sqlite3, ver
os.listdir(".")
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with sqlite3.connect("db.sqlite3") as db:
            db.execute("create table if not exists visits (at)")
            db.execute("insert into visits values (1)")
            n = db.execute("select count(*) from visits").fetchone()[0]
        b = f"{ver.V} {n}".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(b))); self.end_headers()
        self.wfile.write(b)
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
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


def test_b34_what_a_program_writes_into_its_database_is_no_save(tmp_path: Path) -> None:
    """As a Django project that begins: SQLite in the project's folder, and nothing ignored."""
    project = Project(tmp_path)
    project.write("app.py", DATABASE)
    with project.up() as up:
        for _ in range(5):
            project.ask()
        mark = up.mark()
        project.version("v2")
        assert up.wait_generation(after=mark)["paths"] == ["ver.py"]
        assert len(up.generations()) == 2, up.generations()
        assert project.hb("rollback").returncode == 0
        rows = int(project.ask().split()[1])
        assert rows > 6, "the older version works on the same rows"
        time.sleep(1.0)
        assert project.ask() == f"v1 {rows + 1}", "a row is no save: it does not end the roll-back"
