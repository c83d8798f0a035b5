"""B31: an open event stream must not stop a reload."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from journey import Project, belonging, eventually

STREAMING = '''\
import http.server, os, time, ver
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        if self.path == "/sse":
            self.send_header("Content-Type", "text/event-stream"); self.end_headers()
            while True:
                self.wfile.write(b"data: tick\\n\\n"); self.wfile.flush(); time.sleep(0.05)
        b = ver.V.encode()
        self.send_header("Content-Length", str(len(b))); self.end_headers(); self.wfile.write(b)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
'''


def test_b31_the_new_version_answers_at_once_and_the_stream_ends_with_its_grace(
        tmp_path: Path) -> None:
    project = Project(tmp_path, extra="[reload]\ndrain = 1.0\n")
    project.write("app.py", STREAMING)
    with project.up() as up:
        stream = socket.create_connection(("127.0.0.1", project.port), timeout=20)
        stream.sendall(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in stream.recv(4096)
        mark = up.mark()
        project.version("v2")
        up.wait_generation(after=mark)
        began = time.monotonic()
        assert project.ask() == "v2"
        while stream.recv(4096):
            assert time.monotonic() - began < 60
        stream.close()
        retired = up.wait(lambda e: e.get("event") == "retired", after=mark)
        assert retired["left"] == []
        eventually(lambda: sum("app.py" in one for one in belonging(project)) <= 1)
