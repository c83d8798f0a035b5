"""Adapts servers and frameworks as they are imported: their own reloaders off, their binds ours.

Each entry of ``ADAPTS`` is called once its module has been imported. What can be seen on a command
line is switched off there already (see ``python/reloaders.py``); here it is what programs say in
their code: ``app.run(debug=True)``, ``uvicorn.run(..., reload=True)``.
"""

from __future__ import annotations

import os

from .notice import NOTICED
from .ports import PORTS, adapt_socket
from .report import REPORTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any


_TOLD: set[str] = set()


def _switched_off(what: str) -> None:
    if what in _TOLD:
        return
    _TOLD.add(what)
    REPORTER.event("note", text=f"{what}'s own reloader is switched off: HyperBox reloads")


def _adapt_uvicorn(module: Any) -> None:
    """``Config.should_reload`` decides whether uvicorn starts its reloading parent."""
    original = module.Config.should_reload.fget

    def should_reload(self: Any) -> bool:
        if original(self):
            _switched_off("uvicorn")
        return False

    module.Config.should_reload = property(should_reload)


def _without_argument(module: Any, name: str, argument: str, position: int, what: str) -> None:
    """Replace a function by one that never gets a true ``argument``."""
    original: Callable[..., Any] = getattr(module, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        wanted = kwargs.pop(argument, False)
        if len(args) > position:
            wanted = args[position] or wanted
            args = (*args[:position], False, *args[position + 1:])
        elif wanted is not False:
            kwargs[argument] = False
        if wanted:
            _switched_off(what)
        return original(*args, **kwargs)

    call.__doc__, call.__name__ = original.__doc__, original.__name__
    setattr(module, name, call)


def _adapt_werkzeug(module: Any) -> None:
    _without_argument(module, "run_simple", "use_reloader", 3, "werkzeug")


def _adapt_quart(module: Any) -> None:
    original = module.Quart.run

    def run(self: Any, host: Any = None, port: Any = None, debug: Any = None,
            use_reloader: bool = False, *args: Any, **kwargs: Any) -> Any:
        return original(self, host, port, debug, False, *args, **kwargs)

    module.Quart.run = run


def _adapt_bottle(module: Any) -> None:
    _without_argument(module, "run", "reloader", 5, "bottle")


def _adapt_django(module: Any) -> None:
    """``run_with_reloader`` starts itself again as a child; only its main function is wanted."""

    def run_with_reloader(main_func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        _switched_off("django")
        return main_func(*args, **kwargs)

    module.run_with_reloader = run_with_reloader


def _adapt_gunicorn(module: Any) -> None:
    original = module.Config.__getattr__

    def __getattr__(self: Any, name: str) -> Any:  # noqa: N807 - it is that method
        value = original(self, name)
        if name == "reload" and value:
            _switched_off("gunicorn")
            return False
        return value

    module.Config.__getattr__ = __getattr__


def _adapt_hypercorn(module: Any) -> None:
    def get(self: Any) -> bool:
        return False

    def put(self: Any, value: bool) -> None:
        if value:
            _switched_off("hypercorn")

    module.Config.use_reloader = property(get, put)


def _adapt_tornado(module: Any) -> None:
    def start(check_time: int = 500) -> None:
        _switched_off("tornado")

    module.start = start


def _adapt_jinja(module: Any) -> None:
    """Templates are looked at again at each use, so that a changed one needs no restart.

    Said once is not enough: Flask sets it anew each time when somebody sets ``app.debug``, as
    ``flask run`` does.
    """
    def get(self: Any) -> bool:
        return True

    def put(self: Any, value: bool) -> None:
        return None

    module.Environment.auto_reload = property(get, put)


def _adapt_starlette(module: Any) -> None:
    """A static file is opened by a thread, below which no frame says that it is for an answer."""
    from contextvars import ContextVar

    sent: ContextVar[str] = ContextVar("sent", default="")
    original = module.FileResponse.__call__

    async def __call__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        sent.set(os.fspath(self.path))
        try:
            await original(self, *args, **kwargs)
        finally:
            sent.set("")

    module.FileResponse.__call__ = __call__
    NOTICED.sent = sent.get


def _adapt_uvloop(module: Any) -> None:
    """uvloop binds in C: it is given a socket that was bound by Python instead."""
    original = module.Loop.create_server

    async def create_server(self: Any, protocol_factory: Any, host: Any = None, port: Any = None,
                            **options: Any) -> Any:
        sock = options.get("sock")
        if sock is None and PORTS.is_public((host, port)):
            sock = options["sock"] = _bound(host, port)
            for name in ("family", "flags", "reuse_address", "reuse_port"):
                options.pop(name, None)
            host = port = None
        server = await original(self, protocol_factory, host, port, **options)
        _announce(sock)
        return server

    module.Loop.create_server = create_server


def _bound(host: Any, port: int) -> Any:
    import socket

    name = host if isinstance(host, str) else next(iter(host or ()), "")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((name, port))
    sock.setblocking(False)
    return sock


def _announce(sock: Any) -> None:
    """uvloop listens in C, so nobody else tells that connections are taken."""
    import socket

    if not isinstance(sock, socket.socket) or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    private = super(socket.socket, sock).getsockname()[1]
    if private in PORTS.by_private:
        PORTS.announce(private)


ADAPTS: dict[str, Callable[[ModuleType], None]] = {
    "socket": adapt_socket,
    "uvloop": _adapt_uvloop,
    "uvicorn.config": _adapt_uvicorn,
    "werkzeug.serving": _adapt_werkzeug,
    "quart.app": _adapt_quart,
    "bottle": _adapt_bottle,
    "django.utils.autoreload": _adapt_django,
    "gunicorn.config": _adapt_gunicorn,
    "hypercorn.config": _adapt_hypercorn,
    "tornado.autoreload": _adapt_tornado,
    "jinja2.environment": _adapt_jinja,
    "starlette.responses": _adapt_starlette,
}
