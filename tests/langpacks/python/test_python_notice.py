"""Which files that are read after the program listens count as taken in: all that it may keep."""

from __future__ import annotations

import sys

import pytest
from packrun import Bench, get, wait_for

STARLETTE = """
import anyio, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

kept = {}

async def path(request):
    return PlainTextResponse(await anyio.Path("path.css").read_text())

async def opened(request):
    async with await anyio.open_file("opened.js", "rb") as file:
        kept["it"] = await file.read()
    return PlainTextResponse(kept["it"])

routes = [Route("/path", path), Route("/opened", opened), Mount("/s", StaticFiles(directory="s"))]
uvicorn.run(Starlette(routes=routes), port=8123, log_level="error")
"""

FLASK = """
import functools, flask
app = flask.Flask("app", root_path=".")

@functools.lru_cache
def read():
    with open("kept.css") as file:
        return file.read()

@app.get("/kept")
def kept():
    return read()

@app.get("/resource")
def resource():
    with app.open_resource("resource.css") as file:
        return file.read()

@app.get("/sent")
def sent():
    return flask.send_file("sent.txt")

@app.get("/page")
def page():
    return flask.render_template("page.html")

app.run(port=8123)
"""

PLAIN = """
import http.server
http.server.ThreadingHTTPServer(
    ("127.0.0.1", 8123), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def files_after(made: Bench, program: str, *paths: str, last: str) -> set[str]:
    """What counts as taken in after these requests; ``last`` must, so all before it was told."""
    made.write("app.py", program)
    made.start(sys.executable, "app.py")
    port = made.control.port()
    for path in paths:
        assert get(port, path) == (200, "a file")
    wait_for(lambda: last in made.control.files())
    return made.control.files()


def test_starlettes_static_files_are_read_anew_and_what_a_program_reads_by_anyio_is_not(
        made: Bench) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    for name in ("path.css", "opened.js", "s/site.css", "s/data.json"):
        made.write(name, "a file")
    files = files_after(made, STARLETTE, "/s/site.css", "/s/data.json", "/path", "/opened",
                        last="opened.js")
    assert "path.css" in files
    assert not {"s/site.css", "s/data.json"} & files


def test_flasks_pages_and_sent_files_are_read_anew_and_what_a_view_reads_is_not(
        made: Bench) -> None:
    pytest.importorskip("flask")
    for name in ("kept.css", "resource.css", "sent.txt", "static/a.css", "templates/page.html"):
        made.write(name, "a file")
    files = files_after(made, FLASK, "/static/a.css", "/sent", "/page", "/resource", "/kept",
                        last="kept.css")
    assert "resource.css" in files
    assert not {"sent.txt", "static/a.css", "templates/page.html"} & files


def test_the_plain_file_server_reads_each_file_anew(made: Bench) -> None:
    made.write("a.txt", "a file")
    files = files_after(made, PLAIN, "/a.txt", "/a.txt", last="app.py")
    assert "a.txt" not in files


def test_pages_of_the_plain_file_server_started_as_a_module_are_read_anew(made: Bench) -> None:
    made.write("a.txt", "a file")
    made.start(sys.executable, "-m", "http.server", "-b", "127.0.0.1", "8123")
    port = made.control.port()
    assert get(port, "/a.txt") == (200, "a file")
    wait_for(lambda: "modules" in [event["event"] for event in made.control.events])
    assert get(port, "/a.txt") == (200, "a file")
    assert not {"a.txt", "./"} & made.control.files()


def test_a_module_that_is_only_named_like_a_library_is_the_programs_own(made: Bench) -> None:
    made.write("kept.css", "a file")
    made.write("jinja2_helpers.py", "def read():\n    return open('kept.css', 'rb').read()\n")
    files = files_after(made, """
import http.server, jinja2_helpers
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = jinja2_helpers.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 8123), Handler).serve_forever()
""", "/", last="kept.css")
    assert "kept.css" in files
