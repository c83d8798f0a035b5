"""Serves requests of a throw-away app, so that first-request work is done before the fork.

Frameworks import lazily, compile patterns and fill caches at the first request. Only what is
already imported is warmed up, over a socket pair or a loopback socket of our own; nothing of it is
left afterwards, and the caller checks that.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .argv import Invocation

REQUEST = (b"GET /hyperbox-warm-up?a=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
           b"User-Agent: warm-up\r\nConnection: close\r\n\r\n")


def serve(invocation: Invocation | None = None) -> None:
    """Warm up each framework and server that is imported, and a known command's own parser.

    A fault in it is reported nowhere: it costs a few milliseconds later, and the program meets its
    library's real faults by itself.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module, warm_up in _WARM_UPS:
            if module in sys.modules:
                _try(warm_up)
        if invocation is not None and "uvicorn.main" in sys.modules:
            _try(lambda: _parse_uvicorn(invocation))


def _try(warm_up: Callable[[], None]) -> None:
    try:
        warm_up()
    except Exception:  # noqa: BLE001 - a version of the library that we don't know: left cold
        return


def _parse_uvicorn(invocation: Invocation) -> None:
    """Reading its command line is a third of uvicorn's own start."""
    command: Any = sys.modules["uvicorn.main"].main
    if os.path.basename(invocation.target) == "uvicorn":
        command.make_context("uvicorn", list(invocation.arguments))


# ------------------------------------------------------------------------------------- ASGI


async def _plain_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b"{}"
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def _asgi_app() -> Any:
    if "fastapi" in sys.modules:
        return _fastapi_app()
    if "starlette.applications" in sys.modules:
        return _starlette_app()
    return _plain_asgi


def _fastapi_app() -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/{name}")
    async def answer(name: str, a: int = 0) -> dict[str, str]:
        return {"name": name}

    return app


def _starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def answer(request: Any) -> Any:
        return JSONResponse({"name": request.path_params["name"]})

    return Starlette(routes=[Route("/{name}", answer)])


def _uvicorn() -> None:
    """One request through uvicorn's own server, loop and protocol, lifespan included."""
    import asyncio
    import socket

    import uvicorn

    config = uvicorn.Config(_asgi_app(), log_config=None, lifespan="auto", access_log=False)
    config.load()
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    # Connected here: uvloop would do it by a pool of threads, which a fork loses.
    client = socket.create_connection(listener.getsockname())
    client.setblocking(False)

    async def journey() -> None:
        loop = asyncio.get_running_loop()
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        try:
            await _ask(loop, client)
        finally:
            await _close(server)

    with listener, client:
        _run(config, journey)


async def _close(server: Any) -> None:
    """What is needed of its ``shutdown``, which also sleeps for 0.1 s: each child that is forked
    ahead would do that before it is any use."""
    import asyncio

    for one in server.servers:
        one.close()
    await server.lifespan.shutdown()
    await asyncio.sleep(0)


async def _ask(loop: Any, client: Any) -> None:
    await loop.sock_sendall(client, REQUEST)
    while await loop.sock_recv(client, 65_536):
        pass


def _run(config: Any, journey: Callable[[], Any]) -> None:
    """Run on the kind of loop that uvicorn would choose, and leave no loop behind."""
    import asyncio

    make = getattr(config, "get_loop_factory", lambda: None)()
    loop = make() if make is not None else asyncio.new_event_loop()
    try:
        loop.run_until_complete(journey())
    finally:
        loop.close()


# ------------------------------------------------------------------------------------- WSGI


def _flask() -> None:
    """One request through Flask by way of its test client, so without a socket."""
    from flask import Flask, jsonify

    app = Flask("hyperbox_warm_up")

    @app.route("/<name>")
    def answer(name: str) -> Any:
        return jsonify(name=name)

    app.test_client().get("/warm-up?a=1")


def _werkzeug() -> None:
    """One request through werkzeug's development server, on one end of a socket pair."""
    import io
    import socket

    from werkzeug.serving import BaseWSGIServer

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"{}"]

    quiet, sys.stderr = sys.stderr, io.StringIO()
    try:
        server = BaseWSGIServer("127.0.0.1", 0, app)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(REQUEST)
            server.finish_request(theirs, ("127.0.0.1", 1))
        server.server_close()
    finally:
        sys.stderr = quiet


def _http_server() -> None:
    """One request through the library's own server class, on one end of a socket pair."""
    import socket
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            return

    # Its bind asks for the host's name: the first look-up of a process loads the resolver, 1 ms.
    socket.getfqdn("127.0.0.1")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(REQUEST)
        Handler(theirs, ("127.0.0.1", 1), None)  # type: ignore[arg-type]


def _django() -> None:
    """Only imports: a request would need the project's settings."""
    __import__("django.core.handlers.wsgi")
    __import__("django.core.servers.basehttp")


_WARM_UPS: tuple[tuple[str, Callable[[], None]], ...] = (
    ("http.server", _http_server), ("flask", _flask), ("werkzeug.serving", _werkzeug),
    ("uvicorn", _uvicorn), ("django", _django))
