"""The programs that are edited: one small app in three frameworks, with ten modules beside it.

``GET /`` answers ``v=N m=a,b,…``: the version in ``app.py`` (or in ``.env``, if that is newer) and
the versions of the ten modules, so that one answer tells which state of the tree made it.
``/events`` is an event stream; the FastAPI app also echoes on the websocket ``/ws``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MODULES = 10

_IMPORTS = "\n".join(f"import part{n}" for n in range(MODULES))
_BODY = '''
V = "{version}"{pad}
PARTS = [{parts}]


def body():
    version = max(int(V), int(os.environ.get("EDIT", 0)))
    return "v=" + str(version) + " m=" + ",".join(PARTS)
'''

_STDLIB = '''
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # one segment an answer: two would wait for a delayed acknowledgement

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/events":
            return self.stream()
        data = body().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"data: " + body().encode() + b"\\n\\n")
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            self.close_connection = True


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
'''

_FASTAPI = '''
app = FastAPI()


@app.get("/", response_class=PlainTextResponse)
async def root():
    return body()


@app.get("/events")
async def events():
    async def stream():
        while True:
            yield "data: " + body() + "\\n\\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.websocket("/ws")
async def echo(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass
'''

_FLASK = '''
app = Flask(__name__)


@app.get("/")
def root():
    return Response(body(), mimetype="text/plain")


@app.get("/events")
def events():
    def stream():
        while True:
            yield "data: " + body() + "\\n\\n"
            time.sleep(0.1)

    return Response(stream(), mimetype="text/event-stream")
'''

_HEADS = {
    "stdlib": "import os\nimport sys\nimport time\n"
              "from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer\n",
    "fastapi": "import asyncio\nimport os\n\n"
               "from fastapi import FastAPI, WebSocket, WebSocketDisconnect\n"
               "from fastapi.responses import PlainTextResponse, StreamingResponse\n",
    "flask": "import os\nimport time\n\nfrom flask import Flask, Response\n",
}
_TAILS = {"stdlib": _STDLIB, "fastapi": _FASTAPI, "flask": _FLASK}
FRAMEWORKS = tuple(_HEADS)


def app_source(framework: str, version: int, broken: str = "") -> str:
    """The text of ``app.py``; ``broken`` is put in front of the tail, where it fails at import.

    Its length changes with each version: a second edit of the same length in the same second is
    lost by the peers that trust a timestamp ``.pyc``, which is measured elsewhere.
    """
    parts = ", ".join(f"part{n}.V" for n in range(MODULES))
    text = _BODY.format(version=version, pad="  # " + "." * (1 + version % 7), parts=parts)
    return f"{_HEADS[framework]}\n{_IMPORTS}\n{text}{broken}\n{_TAILS[framework]}"


def part_source(version: int) -> str:
    """The text of one of the ten modules."""
    return f'V = "{version}"  # {"." * (1 + version % 7)}\n'


@dataclass
class Project:
    """A copy of the app in a folder, and the versions that its files hold now."""

    folder: Path
    framework: str
    version: int = 0
    parts: list[int] = field(default_factory=lambda: [0] * MODULES)

    def create(self, extra: Mapping[str, str]) -> None:
        """Write all files, and ``extra`` ones by name."""
        self.folder.mkdir(parents=True)
        for name, text in extra.items():
            (self.folder / name).write_text(text)
        for n in range(MODULES):
            self.write_part(n, 0)
        self.write_app(0)

    def write_app(self, version: int) -> None:
        """Save ``app.py`` as most editors do: opened, written and closed in place."""
        self.version = version
        (self.folder / "app.py").write_text(app_source(self.framework, version))

    def write_environment(self, version: int) -> None:
        """Save the environment file: only a fresh interpreter can take that up."""
        self.version = version
        (self.folder / ".env").write_text(f"EDIT={version}\n")

    def write_broken(self, broken: str) -> None:
        """Save an ``app.py`` that can't go live; the version expected stays as it was."""
        (self.folder / "app.py").write_text(app_source(self.framework, self.version + 1, broken))

    def write_part(self, n: int, version: int) -> None:
        """Save one of the ten modules."""
        self.parts[n] = version
        (self.folder / f"part{n}.py").write_text(part_source(version))

    @property
    def answer(self) -> str:
        """What ``GET /`` says once the files as they are now are live."""
        return f"v={self.version} m={','.join(map(str, self.parts))}"
