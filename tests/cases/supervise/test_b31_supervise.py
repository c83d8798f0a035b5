"""B31: an open stream blocks the reload for ever. It gets its time, then it is closed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

APP = """\
import http.server, os, time, ver
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        if self.path == "/sse":
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            while True:
                self.wfile.write(b"data: tick\\n\\n")
                self.wfile.flush()
                time.sleep(0.05)
        b = ver.V.encode()
        self.send_header("Content-Length", str(len(b)))
        self.end_headers()
        self.wfile.write(b)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
"""

DRAIN = 3.0


async def test_an_open_stream_never_stops_a_reload(program: Any, helpers: Any) -> None:
    program.write(app=APP)
    supervisor = program.supervisor(drain=DRAIN)
    await supervisor.open()
    await program.reload(supervisor, 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    writer.write(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"data: tick\n\n")
    program.write(ver="V = 'v2'\n")
    began = time.monotonic()
    assert (await program.reload(supervisor, 2)).ok
    end = asyncio.ensure_future(reader.read())
    assert await program.ask() == "v2"
    assert not end.done(), "the answer came only after the stream's end"
    # The stream goes on for its time, and is closed then: its client may connect again.
    assert (await asyncio.wait_for(end, 30)).count(b"data: tick\n\n") > 1
    assert time.monotonic() - began > DRAIN
    writer.close()
    await helpers.until(lambda: supervisor.status()["draining"] == 0)
    assert len(program.marked()) == 1
    retired = next(event for event in program.events if event["event"] == "retired")
    assert retired["cut"] == 1
