"""B35: the restart cuts the program's own write. SIGTERM, then the grace; the file is whole."""

from __future__ import annotations

import asyncio
import json
from typing import Any

APP = """\
import http.server, os, signal, threading, ver
busy = threading.Lock()
def term(*_):
    threading.Thread(target=finish).start()
def finish():
    with busy:
        os._exit(0)
signal.signal(signal.SIGTERM, term)
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with busy:
            with open("opts.json", "w") as file:
                for part in ['{"v": "'] + ["x" * 10_000] * 100 + ['"}']:
                    file.write(part)
                    file.flush()
        b = ver.V.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(b)))
        self.end_headers()
        self.wfile.write(b)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
"""


async def test_the_file_is_never_cut_and_no_request_fails(program: Any, helpers: Any) -> None:
    program.write(app=APP)
    # Versions that write the same file must not overlap.
    supervisor = program.supervisor(overlap=False, grace=10.0)
    await supervisor.open()
    await program.reload(supervisor, 1)
    answers: list[str] = []
    ending = asyncio.Event()

    async def load() -> None:
        while not ending.is_set():
            answers.append(await program.ask())

    clients = [asyncio.ensure_future(load()) for _ in range(2)]
    for number in range(2, 12):
        program.write(ver=f"V = 'v{number}'\n")
        assert (await program.reload(supervisor, number)).ok
        await asyncio.sleep(0.02)
    ending.set()
    await asyncio.gather(*clients)
    assert answers[-1] == "v11"
    await supervisor.stop()
    assert len(json.loads((program.root / "opts.json").read_text())["v"]) == 1_000_000
    killed = [event["killed"] for event in program.events if event["event"] == "retired"]
    assert not any(killed)


async def test_a_grace_that_ran_out_is_said(program: Any, helpers: Any) -> None:
    program.write(app="import signal\nsignal.signal(15, signal.SIG_IGN)\n" + helpers.base_app)
    supervisor = program.supervisor(grace=0.2)
    await supervisor.open()
    await program.reload(supervisor, 1)
    await program.reload(supervisor, 2)
    await helpers.until(lambda: any(event["event"] == "retired" for event in program.events))
    retired = next(event for event in program.events if event["event"] == "retired")
    assert (retired["number"], retired["killed"]) == (1, 1)
    assert await program.ask() == "v1"
