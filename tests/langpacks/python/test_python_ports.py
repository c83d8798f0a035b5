"""The program binds its port and gets a private one; it sees its own address and true clients."""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

import pytest
from packrun import PUBLIC, Bench, WorkerEnd, every_python, wait_for

TRUE = ("10.1.2.3", 4321)


def peers_table(path: Path) -> Path:
    """A table in which every local port is the true client's: whoever connects is that."""
    record = struct.pack("!BBH4x4s12x", 4, 0, TRUE[1], socket.inet_aton(TRUE[0]))
    path.write_bytes(record * 65_536)
    return path


def ask(port: int, path: str = "/") -> str:
    """One request on a connection of its own; the body."""

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except ConnectionRefusedError:
            return None

    with wait_for(connect) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while part := client.recv(65_536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    assert b" 200" in head.split(b"\r\n")[0], data
    return body.decode()


ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind.endswith("shutdown"):
                return
    body = repr((scope["client"][:2], scope["server"][1])).encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
"""
WSGI = """
def app(environ, start_response):
    body = repr((environ["REMOTE_ADDR"], environ["SERVER_PORT"])).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
STREAMS = """
import asyncio, sys
async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    body = repr((writer.get_extra_info("peername")[:2],
                 writer.get_extra_info("sockname")[1])).encode()
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    await writer.drain()
    writer.close()
async def main(host):
    server = await asyncio.start_server(answer, host, 8123)
    assert {one.getsockname()[1] for one in server.sockets} == {8123}
    await server.serve_forever()
asyncio.run(main(None if sys.argv[1] == "all" else sys.argv[1]))
"""
HTTP_SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = repr((self.client_address[:2], self.connection.getsockname()[1],
                     self.connection.getpeername()[:2] == self.client_address[:2])).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer((sys.argv[1], 8123), Handler)
assert server.server_address == (sys.argv[2], 8123), server.server_address
server.serve_forever()
"""


@every_python
@pytest.mark.parametrize(("asked", "seen"), [("127.0.0.1", "127.0.0.1"), ("", "0.0.0.0"),
                                             ("localhost", "127.0.0.1")])
def test_a_plain_server_sees_its_own_address(made: Bench, python: str, tmp_path: Path, asked: str,
                                             seen: str) -> None:
    made.write("app.py", HTTP_SERVER)
    made.start(python, "app.py", asked, seen, HYPERBOX_PEERS=str(peers_table(tmp_path / "peers")))
    assert ask(made.control.port()) == repr((TRUE, PUBLIC, True))


@pytest.mark.parametrize("host", ["all", "127.0.0.1", "::1", "0.0.0.0", "::"])
def test_streams_on_any_host_are_reached_from_the_loopback(made: Bench, tmp_path: Path,
                                                           host: str) -> None:
    made.write("app.py", STREAMS)
    made.start(sys.executable, "app.py", host, HYPERBOX_PEERS=str(peers_table(tmp_path / "peers")))
    body = ask(made.control.port())
    assert body.replace("::ffff:", "") == repr((TRUE, PUBLIC))
    ports = {event["port"] for event in made.control.named("listening")}
    assert PUBLIC not in ports


def test_other_ports_and_kinds_are_left_alone(made: Bench) -> None:
    made.write("app.py", """
import socket
plain = socket.create_server(("127.0.0.1", 0))
assert plain.getsockname()[1] not in (0, 8123)
local = socket.socket(socket.AF_UNIX)
local.bind("s")
local.listen()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 0))
with socket.create_connection(plain.getsockname()) as client:
    taken, address = plain.accept()
    assert address == client.getsockname() and taken.getpeername() == address
try:
    socket.socket().bind("nonsense")
except TypeError as error:
    print(error)
""")
    status, out = made.run(sys.executable, "app.py")
    assert (status, "AF_INET address must be tuple" in out) == (0, True), out
    assert made.control.named("listening") == made.control.named("problem") == []


def test_a_port_that_the_program_says_itself_stands_for_the_one_that_was_chosen(
        made: Bench) -> None:
    own = 18_764
    made.write("app.py", "import socket\nsock = socket.socket()\n"
                         f"sock.bind(('127.0.0.1', {own}))\nsock.listen()\n"
                         "print(sock.getsockname())\n")
    status, out = made.run(sys.executable, "app.py", HYPERBOX_OWN_PORT=str(own))
    assert (status, out) == (0, f"('127.0.0.1', {own})\n")
    assert made.control.port() not in (own, PUBLIC)


def test_without_a_public_port_nothing_is_mapped(made: Bench) -> None:
    made.write("app.py", "import socket\ns = socket.create_server(('127.0.0.1', 0))\n"
                         "print(s.getsockname()[1] > 0)\n")
    assert made.run(sys.executable, "app.py", public=None) == (0, "True\n")
    assert made.control.named("listening") == []


def test_a_missing_or_short_table_leaves_the_address_as_it_is(made: Bench, tmp_path: Path) -> None:
    made.write("app.py", HTTP_SERVER)
    (tmp_path / "short").write_bytes(b"\x04" * 10)
    made.start(sys.executable, "app.py", "127.0.0.1", "127.0.0.1",
               HYPERBOX_PEERS=str(tmp_path / "short"))
    assert ask(made.control.port()).startswith("(('127.0.0.1', ")
    assert made.control.named("problem") == []


# --------------------------------------------------------------------------- servers, cold and warm

MODULES = {"fa.py": """
from fastapi import FastAPI, Request
app = FastAPI()
@app.get("/")
async def root(request: Request):
    return [request.client, request.scope["server"][1]]
""", "fl.py": """
from flask import Flask, request
app = Flask(__name__)
@app.get("/")
def root():
    return [request.remote_addr, request.environ["SERVER_PORT"]]
if __name__ == "__main__":
    app.run(port=8123, debug=True)
""", "asgi.py": ASGI, "wsgi.py": WSGI}

SERVERS = {
    "uvicorn, uvloop": (("uvicorn", "fastapi"), "-m uvicorn fa:app --port 8123"),
    "uvicorn, asyncio and h11": (
        ("uvicorn",), "-m uvicorn asgi:app --port 8123 --loop asyncio --http h11 --host 0.0.0.0"),
    "uvicorn, IPv6": (("uvicorn",), "-m uvicorn asgi:app --port 8123 --host ::"),
    "uvicorn --reload": (("uvicorn",), "-m uvicorn asgi:app --port 8123 --reload"),
    "uvicorn, two workers": (("uvicorn",), "-m uvicorn asgi:app --port 8123 --workers 2"),
    "flask script in debug": (("flask",), "fl.py"),
    "flask run": (("flask",), "-m flask --app fl run --debug -p 8123"),
    "gunicorn --reload, two workers": (
        ("gunicorn",), "-m gunicorn --reload -w 2 --no-control-socket -b :8123 wsgi:app"),
    "gunicorn, threads, IPv6": (
        ("gunicorn",), "-m gunicorn -k gthread --no-control-socket -b [::]:8123 wsgi:app"),
    "gunicorn --reuse-port": (
        ("gunicorn",), "-m gunicorn -w 2 --reuse-port --no-control-socket -b :8123 wsgi:app"),
}
needs_all = [pytest.param(name, marks=pytest.mark.needs(*needed), id=name)
             for name, (needed, _) in SERVERS.items()]


@pytest.mark.parametrize("how", ["cold", "warm"])
@pytest.mark.parametrize("name", needs_all)
def test_a_servers_bind_is_mapped(made: Bench, tmp_path: Path, name: str, how: str) -> None:
    for module in SERVERS[name][0]:
        # A console script of that name may stand on PATH without the module being ours to import.
        pytest.importorskip(module)
    for path, text in MODULES.items():
        made.write(path, text)
    argv, table = SERVERS[name][1].split(), str(peers_table(tmp_path / "peers"))
    if how == "cold":
        made.start(sys.executable, *argv, HYPERBOX_PEERS=table)
        body = ask(made.control.port())
    else:
        worker = WorkerEnd(made, sys.executable)
        assert worker.ask("prepare", preload=[*SERVERS[name][0], "json"])["ok"]
        forked = worker.fork(*argv, HYPERBOX_PEERS=table)
        forked.let_go()
        body = ask(made.control.port())
        forked.kill()
        worker.close()
    assert TRUE[0] in body
    assert str(PUBLIC) in body
    assert made.control.named("problem") == []
    notes = [event["text"] for event in made.control.named("note")]
    reloads = "--reload" in SERVERS[name][1] or "flask" in name
    assert any("own reloader is switched off" in note for note in notes) == reloads
