"""Reads what a project's files say about themselves: app objects, factories, run calls, ports.

Files are parsed, never imported. What is found is plain data; ``frameworks.py`` decides on it.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from hyperbox_langpacks.base import ProjectView

MAX_FILES = 120
LIKELY = ("main", "app", "asgi", "wsgi", "server", "application", "api", "web", "run", "__init__",
          "__main__", "manage", "index")
"""Stems in which an app object usually stands, the likeliest first."""
SKIPPED = frozenset(("tests", "test", "docs", "doc", "examples", "scripts", "migrations", "build",
                     "dist", "node_modules", "__pycache__", "env", "venv", "site", "static",
                     "templates", "benchmarks", "tools"))
FACTORY_NAMES = ("create_app", "make_app", "get_app", "build_app", "app_factory", "init_app",
                 "create_application", "get_application", "make_application")

APP_CLASSES: dict[str, str] = {
    "fastapi.FastAPI": "fastapi", "fastapi.applications.FastAPI": "fastapi",
    "starlette.applications.Starlette": "starlette", "flask.Flask": "flask",
    "flask.app.Flask": "flask", "quart.Quart": "quart", "litestar.Litestar": "litestar",
    "aiohttp.web.Application": "aiohttp", "falcon.asgi.App": "falcon-asgi", "falcon.App": "falcon",
    "falcon.API": "falcon", "bottle.Bottle": "bottle", "bottle.default_app": "bottle",
    "sanic.Sanic": "sanic", "tornado.web.Application": "tornado",
    "blacksheep.Application": "blacksheep", "fasthtml.common.FastHTML": "starlette",
    "connexion.AsyncApp": "connexion", "connexion.FlaskApp": "flask", "dash.Dash": "dash",
    "django.core.wsgi.get_wsgi_application": "django-wsgi",
    "django.core.asgi.get_asgi_application": "django-asgi", "apiflask.APIFlask": "flask",
    "chalice.Chalice": "chalice", "responder.API": "starlette", "esmerald.Esmerald": "starlette",
    "robyn.Robyn": "robyn", "pyramid.config.Configurator.make_wsgi_app": "wsgi",
    "nicegui.ui": "nicegui",
}
"""Calls that make an app, by their full name, and the framework."""
ASGI = frozenset(("fastapi", "starlette", "quart", "litestar", "falcon-asgi", "blacksheep",
                  "connexion", "django-asgi", "asgi"))
WSGI = frozenset(("flask", "falcon", "bottle", "django-wsgi", "wsgi"))

RUN_CALLS: dict[str, int | None] = {
    "uvicorn.run": 8000, "aiohttp.web.run_app": 8080, "waitress.serve": 8080, "bottle.run": 8080,
    "hypercorn.run": 8000, "granian.Granian": 8000, "werkzeug.serving.run_simple": None,
    "wsgiref.simple_server.make_server": None, "http.server.HTTPServer": None,
    "http.server.ThreadingHTTPServer": None, "http.server.test": 8000,
    "socketserver.TCPServer": None, "socketserver.ThreadingTCPServer": None,
    "asyncio.start_server": None, "socket.create_server": None, "cherrypy.quickstart": 8080,
    "gevent.pywsgi.WSGIServer": None, "eventlet.listen": None, "websockets.serve": None,
    "websockets.asyncio.server.serve": None, "websockets.sync.server.serve": None,
    "gradio.launch": 7860, "tornado.httpserver.HTTPServer": None, "nicegui.ui.run": 8080,
}
"""Calls that serve, and the port that each has when none is given."""
RUN_METHODS: dict[str, int | None] = {
    "flask": 5000, "quart": 5000, "sanic": 8000, "bottle": 8080, "dash": 8050, "robyn": 8080}
"""``app.run()`` by the framework of ``app``, and its default port."""
PORT_METHODS = ("bind", "listen", "create_server", "start_server")


class App(NamedTuple):
    """An app object or a factory."""

    path: str
    module: str
    name: str
    framework: str
    is_factory: bool = False


class RunCall(NamedTuple):
    """A call that serves until the program ends."""

    port: int | None
    reload: bool
    framework: str | None
    call: str
    reads_port: bool = False
    """Whether its port comes from the environment variable PORT."""


class Source(NamedTuple):
    """What one file says."""

    path: str
    module: str
    search_path: str
    """The folder that must be on ``sys.path`` for ``module``, relative to the root."""
    apps: tuple[App, ...] = ()
    runs: tuple[RunCall, ...] = ()
    has_main_block: bool = False
    is_empty: bool = False


def candidate_files(view: ProjectView) -> list[str]:
    """Files that may hold an app or a main program, the likeliest first."""
    found: list[str] = []
    for folder in _folders(view):
        found += [f"{folder}/{name}" if folder else name for name in view.list_dir(folder)
                  if name.endswith(".py")
                  and not name.startswith(("test_", "conftest", "setup."))]
    return sorted(found, key=_likelihood)[:MAX_FILES]


def _folders(view: ProjectView) -> Iterator[str]:
    """The root, packages in it and in ``src``, and one level below those."""
    yield ""
    tops = [name for name in _subfolders(view, "") if name != "src"]
    tops += [f"src/{name}" for name in _subfolders(view, "src")]
    if view.is_dir("src"):
        yield "src"
    for top in tops:
        yield top
        if view.exists(f"{top}/__init__.py"):
            yield from (f"{top}/{name}" for name in _subfolders(view, top)
                        if view.exists(f"{top}/{name}/__init__.py"))


def _subfolders(view: ProjectView, folder: str) -> list[str]:
    return [name for name in view.list_dir(folder)
            if name.isidentifier() and name not in SKIPPED
            and view.is_dir(f"{folder}/{name}" if folder else name)]


def _likelihood(path: str) -> tuple[int, int, str]:
    stem = path.rpartition("/")[2].removesuffix(".py")
    place = LIKELY.index(stem) if stem in LIKELY else len(LIKELY)
    return (path.count("/") - path.startswith("src/"), place, path)


def read_source(view: ProjectView, path: str) -> Source | None:
    """What a file says; None where it can't be read or parsed."""
    text = view.read_text(path)
    tree = parse(text)
    if text is None or tree is None:
        return None
    search_path, module = locate(view, path)
    scope = _Scope()
    scope.read(tree)
    apps = tuple(App(path, module, name, framework, is_factory)
                 for name, framework, is_factory in _find_apps(tree, scope))
    return Source(path, module, search_path, apps, tuple(_find_runs(tree, scope)),
                  any(map(_is_main_block, tree.body)), not tree.body)


def parse(text: str | None) -> ast.Module | None:
    """The file's tree, or None where it isn't Python that this Python can read."""
    if text is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def locate(view: ProjectView, path: str) -> tuple[str, str]:
    """The folder for ``sys.path`` and the module's dotted name, going up while in a package."""
    folder, _, name = path.rpartition("/")
    parts = [] if name == "__init__.py" else [name.removesuffix(".py")]
    while folder and folder != "src" and view.exists(f"{folder}/__init__.py"):
        folder, _, package = folder.rpartition("/")
        parts.insert(0, package)
    # A folder without __init__.py is a namespace package of the root: app/main.py is app.main.
    if folder and folder != "src" and not folder.startswith("src/"):
        parts = [*folder.split("/"), *parts]
        folder = ""
    return folder, ".".join(parts) or "__init__"


# ---------------------------------------------------------------------------- reading a tree


class _Scope:
    """What the names of a module stand for."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        """Local name → full name of what was imported under it."""
        self.frameworks: dict[str, str] = {}
        """Variable → framework of the app it holds."""
        self.constants: dict[str, int] = {}
        self.from_port: set[str] = set()
        """Variables that hold the environment's PORT."""

    def read(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    self.names[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    self.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                self._assign(node)

    def _assign(self, node: ast.Assign | ast.AnnAssign) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if not isinstance(target, ast.Name) or node.value is None:
                continue
            if (number := self.number(node.value)) is not None:
                self.constants[target.id] = number
            if self.is_from_port(node.value):
                self.from_port.add(target.id)
            if (framework := self.framework_of(node.value)) is not None:
                self.frameworks[target.id] = framework

    def full_name(self, node: ast.expr) -> str:
        """The dotted name of what an expression refers to, as far as imports tell."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.full_name(node.value)}.{node.attr}"
        return ""

    def framework_of(self, node: ast.expr) -> str | None:
        """The framework whose app a call makes, or None."""
        return APP_CLASSES.get(self.full_name(node.func)) if isinstance(node, ast.Call) else None

    def number(self, node: ast.expr | None) -> int | None:
        """A literal port: a number, a constant's name, or the default of an environment lookup."""
        if isinstance(node, ast.Constant):
            return _port_number(node.value)
        if isinstance(node, ast.Name):
            return self.constants.get(node.id)
        if isinstance(node, ast.Call):
            return next((found for argument in reversed(node.args)
                         if (found := self.number(argument)) is not None), None)
        if isinstance(node, ast.BoolOp):
            return self.number(node.values[-1])
        return None

    def is_from_port(self, node: ast.expr | None) -> bool:
        """Whether an expression looks up PORT in the environment."""
        if isinstance(node, ast.Name):
            return node.id in self.from_port
        parts = list(ast.walk(node)) if node is not None else []
        looks_up = any(getattr(part, "attr", getattr(part, "id", "")) in ("environ", "getenv")
                       for part in parts)
        return looks_up and any(isinstance(part, ast.Constant) and part.value == "PORT"
                                for part in parts)


def _port_number(value: object) -> int | None:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536 \
        else None


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run at import, those inside ``if``, ``try`` and ``with`` included."""
    for node in body:
        if _is_main_block(node):
            continue
        yield node
        for inner in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from _top_level(getattr(node, inner, []))


def _is_main_block(node: ast.stmt) -> bool:
    return (isinstance(node, ast.If) and isinstance(node.test, ast.Compare)
            and "__name__" in ast.dump(node.test) and "__main__" in ast.dump(node.test))


def _find_apps(tree: ast.Module, scope: _Scope) -> Iterator[tuple[str, str, bool]]:
    factories = dict(_factories(tree, scope))
    for node in _top_level(tree.body):
        yield from _assigned_apps(node, scope, factories)
        if isinstance(node, ast.AsyncFunctionDef) and _parameters(node)[:3] == [
                "scope", "receive", "send"]:
            yield node.name, "asgi", False
        if isinstance(node, ast.FunctionDef) and _parameters(node)[:2] == [
                "environ", "start_response"]:
            yield node.name, "wsgi", False
    for name, framework in factories.items():
        yield name, framework, True


def _assigned_apps(node: ast.stmt, scope: _Scope,
                   factories: dict[str, str]) -> Iterator[tuple[str, str, bool]]:
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
        return
    framework = scope.framework_of(node.value) or factories.get(scope.full_name(node.value.func))
    if framework is None:
        return
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        if isinstance(target, ast.Name):
            yield target.id, framework, False


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]


def _factories(tree: ast.Module, scope: _Scope) -> Iterator[tuple[str, str]]:
    """Functions at the top that return an app and can be called without arguments."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not _needs_arguments(node):
            framework = _returned_framework(node, scope)
            if framework is not None:
                yield node.name, framework


def _needs_arguments(node: ast.FunctionDef) -> bool:
    given = len(node.args.defaults)
    required = len(_parameters(node)) - given
    return required > 0 or None in node.args.kw_defaults


def _returned_framework(node: ast.FunctionDef, scope: _Scope) -> str | None:
    if node.returns is not None:
        named = APP_CLASSES.get(scope.full_name(node.returns))
        if named is not None:
            return named
    made: dict[str, str] = {}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assign) and (framework := scope.framework_of(inner.value)):
            made.update({target.id: framework for target in inner.targets
                         if isinstance(target, ast.Name)})
    for inner in ast.walk(node):
        if isinstance(inner, ast.Return) and inner.value is not None:
            if isinstance(inner.value, ast.Name) and inner.value.id in made:
                return made[inner.value.id]
            if (direct := scope.framework_of(inner.value)) is not None:
                return direct
    return None


def _find_runs(tree: ast.Module, scope: _Scope) -> Iterator[RunCall]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            run = _run_call(node, scope)
            if run is not None:
                yield run


def _run_call(node: ast.Call, scope: _Scope) -> RunCall | None:
    name = scope.full_name(node.func)
    method = name.rpartition(".")[2]
    framework = None
    if name in RUN_CALLS:
        default = RUN_CALLS[name]
    elif isinstance(node.func, ast.Attribute) and method in ("run", "run_server"):
        framework = scope.frameworks.get(scope.full_name(node.func.value))
        if framework not in RUN_METHODS:
            return None
        default = RUN_METHODS[framework]
    elif method in PORT_METHODS and isinstance(node.func, ast.Attribute):
        default = None
        if _port_of(node, scope) is None and not _reads_port(node, scope):
            return None
    else:
        return None
    return RunCall(_port_of(node, scope) or default, _wants_reload(node), framework, name,
                   _reads_port(node, scope))


def _arguments(node: ast.Call) -> Iterator[ast.expr]:
    """A call's port as a keyword, else positional ones, addresses taken apart."""
    keywords = [keyword.value for keyword in node.keywords if keyword.arg == "port"]
    yield from keywords
    for argument in node.args:
        if isinstance(argument, ast.Tuple):
            yield from argument.elts[1:2]
        else:
            yield argument


def _port_of(node: ast.Call, scope: _Scope) -> int | None:
    return next((port for argument in _arguments(node)
                 if not isinstance(argument, ast.Call) or scope.is_from_port(argument)
                 or _is_int_call(argument)
                 if (port := scope.number(argument)) is not None), None)


def _is_int_call(node: ast.expr) -> bool:
    return (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            and node.func.id == "int")


def _reads_port(node: ast.Call, scope: _Scope) -> bool:
    return any(scope.is_from_port(argument) for argument in _arguments(node))


def _wants_reload(node: ast.Call) -> bool:
    return any(keyword.arg in ("reload", "debug", "use_reloader", "auto_reload", "reloader")
               and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
               for keyword in node.keywords)
