"""Decides how a project is started, from what its files say and what is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hyperbox_langpacks.base import ProjectView
from hyperbox_langpacks.python.environment import Environment, read_pyproject
from hyperbox_langpacks.python.sources import (
    ASGI,
    LIKELY,
    WSGI,
    App,
    RunCall,
    Source,
    candidate_files,
    read_source,
)
from hyperbox_langpacks.python.toml import get

ENOUGH = 0.9
"""A certainty above which no further kind of program is looked for."""


class Choice(NamedTuple):
    """One way of starting a project: what follows the interpreter, and why."""

    arguments: tuple[str, ...]
    why: str
    certainty: float
    framework: str | None = None
    port: int | None = None
    notes: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    console: str | None = None
    """A console script in place of the interpreter."""


def choose_start(view: ProjectView, environ: Mapping[str, str],
                 found: Environment) -> Choice | None:
    """The best way to start this project, or None where there is nothing to start."""
    sources = [source for path in candidate_files(view)
               if (source := read_source(view, path)) is not None]
    choices: list[Choice] = []
    for choice in _all_choices(view, environ, found, sources):
        choices.append(choice)
        if choice.certainty >= ENOUGH:
            break
    return max(choices, key=lambda choice: choice.certainty, default=None)


def _all_choices(view: ProjectView, environ: Mapping[str, str], found: Environment,
                 sources: Sequence[Source]) -> Iterator[Choice]:
    yield from _django(view)
    yield from _named_flask_app(view, environ, found)
    yield from _scripts_that_serve(sources, environ)
    yield from _apps(sources, found, environ)
    yield from _project_scripts(view, environ, found)
    yield from _packages(sources)
    yield from _plain_scripts(sources, environ)


# ------------------------------------------------------------------------------------- django


def _django(view: ProjectView) -> Iterator[Choice]:
    for folder in ("", *(f"{name}/" for name in view.list_dir() if view.is_dir(name))):
        text = view.read_text(f"{folder}manage.py") or ""
        if "DJANGO_SETTINGS_MODULE" in text or "execute_from_command_line" in text:
            yield Choice((f"{folder}manage.py", "runserver", "--noreload", "127.0.0.1:8000"),
                         f"{folder}manage.py is a Django project's", 0.97, "django", 8000,
                         ("Django's own reloader is switched off: HyperBox reloads",))
            return


# -------------------------------------------------------------------------------------- flask


def _named_flask_app(view: ProjectView, environ: Mapping[str, str],
                     found: Environment) -> Iterator[Choice]:
    """FLASK_APP in the environment, ``.flaskenv`` or ``.env``: the user has said it."""
    for origin, text in (("the environment", environ.get("FLASK_APP")),
                         (".flaskenv", _dotenv(view, ".flaskenv", "FLASK_APP")),
                         (".env", _dotenv(view, ".env", "FLASK_APP"))):
        if text and found.may_have("flask"):
            port = _flask_port(view, environ)
            arguments = ("-m", "flask", "--app", text, "run", "--no-reload", "--port", str(port))
            yield Choice(arguments, f"FLASK_APP={text} in {origin}", 0.96, "flask", port,
                         _flask_notes(view, environ))
            return


def _dotenv(view: ProjectView, path: str, name: str) -> str | None:
    found = re.search(rf"^\s*(?:export\s+)?{name}\s*=\s*['\"]?([^'\"\n#]+)",
                      view.read_text(path) or "", re.MULTILINE)
    return found[1].strip() if found else None


def _flask_port(view: ProjectView, environ: Mapping[str, str]) -> int:
    named = environ.get("FLASK_RUN_PORT") or _dotenv(view, ".flaskenv", "FLASK_RUN_PORT") or ""
    return int(named) if named.isdigit() else 5000


def _flask_notes(view: ProjectView, environ: Mapping[str, str]) -> tuple[str, ...]:
    debug = environ.get("FLASK_DEBUG") or _dotenv(view, ".flaskenv", "FLASK_DEBUG") or "0"
    if debug.lower() in ("0", "false", "no"):
        return ()
    return ("Flask's own reloader (FLASK_DEBUG) is switched off: HyperBox reloads",)


# ---------------------------------------------------------------- scripts that serve by themselves


def _scripts_that_serve(sources: Sequence[Source],
                        environ: Mapping[str, str]) -> Iterator[Choice]:
    """``if __name__ == "__main__": uvicorn.run(...)``: as its author starts it."""
    for source in sources:
        if not source.has_main_block or not source.runs or source.path.endswith("__init__.py"):
            continue
        run = source.runs[0]
        framework = run.framework or _framework_of(source, run)
        if framework is None and run.call.rpartition(".")[2] in ("bind", "listen"):
            continue
        certainty = 0.95 if framework else 0.9
        yield Choice(_start_of(source), f"{source.path} starts {run.call} itself", certainty,
                     framework, _port_of_run(run, environ), _reload_notes(run))
        return


def _framework_of(source: Source, run: RunCall) -> str | None:
    first = run.call.partition(".")[0]
    if source.apps:
        return source.apps[0].framework
    return first if first in ("uvicorn", "aiohttp", "waitress", "hypercorn") else None


def _start_of(source: Source) -> tuple[str, ...]:
    """A script by its path; a module within a package by ``-m``, or its imports would fail."""
    if "." in source.module and not source.search_path:
        return ("-m", source.module.removesuffix(".__main__"))
    return (source.path,)


def _port_of_run(run: RunCall, environ: Mapping[str, str]) -> int | None:
    named = environ.get("PORT", "")
    if run.reads_port:
        return int(named) if named.isdigit() else run.port or 8000
    return run.port


def _reload_notes(run: RunCall) -> tuple[str, ...]:
    if not run.reload:
        return ()
    return (f"the reloader that {run.call} turns on is switched off: HyperBox reloads",)


# ----------------------------------------------------------------------------------- app objects


def _apps(sources: Sequence[Source], found: Environment,
          environ: Mapping[str, str]) -> Iterator[Choice]:
    apps = [(source, app) for source in sources for app in source.apps]
    ranked = sorted(apps, key=lambda one: _app_rank(*one))
    for source, app in ranked:
        choice = _serve_app(source, app, found, environ)
        if choice is not None:
            yield choice
            return


def _app_rank(source: Source, app: App) -> tuple[bool, bool, int, int, bool]:
    """An object before a factory; ``app`` before other names; likely files before others."""
    stem = source.path.rpartition("/")[2].removesuffix(".py")
    return (app.is_factory, app.framework in ("asgi", "wsgi"), source.path.count("/"),
            LIKELY.index(stem) if stem in LIKELY else len(LIKELY),
            app.name not in ("app", "application", "api"))


def _serve_app(source: Source, app: App, found: Environment,
               environ: Mapping[str, str]) -> Choice | None:
    how, call = ("makes", "()") if app.is_factory else ("has", "")
    why = f"{app.path} {how} the {_title(app.framework)} app {app.name}{call}"
    place = f"{app.module}:{app.name}"
    if app.framework == "flask":
        called = f"{place}()" if app.is_factory else place
        return _in_search_path(source, Choice(
            ("-m", "flask", "--app", called, "run", "--no-reload", "--port", "5000"), why, 0.93,
            "flask", 5000, _missing(found, "flask", "flask")))
    if app.framework in ASGI:
        return _in_search_path(source, _serve_asgi(app, place, why, found))
    if app.framework in WSGI:
        return _in_search_path(source, _serve_wsgi(app, place, why, found))
    if app.framework == "aiohttp":
        return _serve_aiohttp(source, app, why, found)
    return None


_TITLES = {"fastapi": "FastAPI", "flask": "Flask", "starlette": "Starlette", "quart": "Quart",
           "litestar": "Litestar", "aiohttp": "aiohttp", "asgi": "ASGI", "wsgi": "WSGI",
           "django-asgi": "Django ASGI", "django-wsgi": "Django WSGI", "falcon": "Falcon",
           "falcon-asgi": "Falcon ASGI", "bottle": "Bottle"}


def _title(framework: str) -> str:
    return _TITLES.get(framework, framework)


def _serve_asgi(app: App, place: str, why: str, found: Environment) -> Choice:
    factory = ("--factory",) if app.is_factory else ()
    if found.has("hypercorn") and not found.has("uvicorn"):
        target = f"{place}()" if app.is_factory else place
        return Choice(("-m", "hypercorn", "--bind", "127.0.0.1:8000", target), why, 0.92,
                      app.framework, 8000)
    return Choice(("-m", "uvicorn", *factory, place, "--host", "127.0.0.1", "--port", "8000"),
                  why, 0.94, app.framework, 8000, _missing(found, "uvicorn", "uvicorn[standard]"))


def _serve_wsgi(app: App, place: str, why: str, found: Environment) -> Choice:
    """By the server that is installed; else by a small one of the library."""
    called = f"{place}()" if app.is_factory else place
    if found.has("gunicorn"):
        arguments = ("-m", "gunicorn", "--bind", "127.0.0.1:8000", called)
    elif found.has("waitress"):
        factory = ("--call",) if app.is_factory else ()
        arguments = ("-m", "waitress", "--listen", "127.0.0.1:8000", *factory, place)
    else:
        program = _WSGIREF.format(module=app.module, name=app.name,
                                  call="()" if app.is_factory else "")
        note = ("no WSGI server is installed, so Python's own wsgiref serves it (one request at a "
                f"time); better: {install_command(found, 'gunicorn')}")
        return Choice(("-c", program), why, 0.91, app.framework, 8000, (note,))
    return Choice(arguments, why, 0.92, app.framework, 8000)


_WSGIREF = ("from wsgiref.simple_server import make_server; from {module} import {name} as app; "
            "make_server('127.0.0.1', 8000, app{call}).serve_forever()")


def _serve_aiohttp(source: Source, app: App, why: str, found: Environment) -> Choice | None:
    """aiohttp's own runner takes a factory with one argument; an object is run by a line."""
    notes = _missing(found, "aiohttp", "aiohttp")
    call = "()" if app.is_factory else ""
    program = (f"from aiohttp import web; from {app.module} import {app.name} as app; "
               f"web.run_app(app{call}, host='127.0.0.1', port=8080)")
    return _in_search_path(source, Choice(("-c", program), why, 0.92, "aiohttp", 8080, notes))


def _in_search_path(source: Source, choice: Choice) -> Choice:
    """Where the module lies below ``src``, that folder must be on the path."""
    if not source.search_path:
        return choice
    return Choice(choice.arguments, choice.why, choice.certainty, choice.framework, choice.port,
                  choice.notes, {"PYTHONPATH": source.search_path}, choice.console)


def _missing(found: Environment, package: str, requirement: str) -> tuple[str, ...]:
    if found.may_have(package):
        return ()
    return (f"{package} is not installed in {found.prefix}: {install_command(found, requirement)}",)


def install_command(found: Environment, requirement: str) -> str:
    """The command that brings a package into this environment."""
    quoted = f"'{requirement}'" if "[" in requirement else requirement
    return {
        "uv": f"uv add {quoted}", "poetry": f"poetry add {quoted}",
        "pipenv": f"pipenv install {quoted}",
        "conda": f"conda install {requirement.partition('[')[0]}",
    }.get(found.manager or "", f"{found.interpreter} -m pip install {quoted}")


# ------------------------------------------------------------------------------ other programs


def _project_scripts(view: ProjectView, environ: Mapping[str, str],
                     found: Environment) -> Iterator[Choice]:
    """``[project.scripts]``: the installed one where it is there, else what it would call."""
    project = read_pyproject(view)
    scripts = get(project, "project", "scripts") or get(project, "tool", "poetry", "scripts")
    if not isinstance(scripts, dict) or not scripts:
        return
    name = next((one for one in ("serve", "server", "start", "dev", get(project, "project", "name"))
                 if one in scripts), next(iter(scripts)))
    place = scripts[name] if isinstance(scripts[name], str) else ""
    module, _, function = place.partition(":")
    why = f"pyproject.toml names the script {name}"
    port = _port_of_module(view, environ, module) if module else None
    installed = f"{found.scripts}/{name}"
    if found.is_own and view.exists(installed):
        yield Choice((), why, 0.7, port=port, console=installed)
    elif module and function:
        first, dot, rest = function.partition(".")
        program = f"import sys; from {module} import {first} as main; sys.exit(main{dot}{rest}())"
        env = {"PYTHONPATH": "src"} if view.is_dir("src") else None
        yield Choice(("-c", program), why, 0.65, port=port, env=env)


def _port_of_module(view: ProjectView, environ: Mapping[str, str], module: str) -> int | None:
    """The port that a module of the project serves at, as far as its source says it."""
    path = module.replace(".", "/")
    for file in (f"{top}{path}{end}" for top in ("src/", "") for end in (".py", "/__init__.py")):
        source = read_source(view, file)
        if source is not None and source.runs:
            return _port_of_run(source.runs[0], environ)
    return None


def _packages(sources: Sequence[Source]) -> Iterator[Choice]:
    for source in sources:
        if source.path.endswith("/__main__.py") and not source.is_empty:
            env = {"PYTHONPATH": source.search_path} if source.search_path else None
            package = source.module.removesuffix(".__main__")
            port = next((run.port for run in source.runs), None)
            yield Choice(("-m", package), f"{source.path} makes {package} a program", 0.75,
                         port=port, env=env)
            return


def _plain_scripts(sources: Sequence[Source], environ: Mapping[str, str]) -> Iterator[Choice]:
    top = [source for source in sources if "/" not in source.path and not source.is_empty
           and source.path not in ("setup.py", "conftest.py", "noxfile.py", "tasks.py")]
    serving = [source for source in top if source.runs]
    main = [source for source in top if source.has_main_block]
    named = [source for source in top if source.module in LIKELY]
    for group, certainty, why in ((serving, 0.88, "serves"), (main, 0.6, "is a main program"),
                                  (named, 0.5, "is named like one"),
                                  (top if len(top) == 1 else [], 0.4, "is the only file")):
        if group:
            source = group[0]
            run = source.runs[0] if source.runs else None
            port = _port_of_run(run, environ) if run else None
            yield Choice((source.path,), f"{source.path} {why}", certainty, None, port,
                         _reload_notes(run) if run else ())
            return
