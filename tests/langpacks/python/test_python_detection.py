"""What the pack finds in a project: a table of layouts, each with the command it would run."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from hyperbox_langpacks.base import Command, PackError
from hyperbox_langpacks.python import PACK
from hyperbox_langpacks.view import MemoryView

PATH = {"PATH": "/usr/bin:/bin", "HOME": "/home/u"}
SYSTEM = {"/usr/bin/python3": "", "/usr/lib/python3.11/site-packages/pip/__init__.py": ""}
PY = "/usr/bin/python3"
VENV = "/project/.venv/bin/python"
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
AIOHTTP_LINE = ("from aiohttp import web; from web import app as app; "
                "web.run_app(app, host='127.0.0.1', port=8080)")
WSGIREF_LINE = ("from wsgiref.simple_server import make_server; from app import app as app; "
                "make_server('127.0.0.1', 8000, app).serve_forever()")
FLASK = "from flask import Flask\napp = Flask(__name__)\n"


def venv(*packages: str, name: str = ".venv") -> dict[str, str]:
    """An environment in the tree with these packages."""
    files = {f"{name}/pyvenv.cfg": "home = /usr/bin\n", f"{name}/bin/python": ""}
    for package in ("pip", *packages):
        files[f"{name}/lib/python3.11/site-packages/{package}/__init__.py"] = ""
    return files


@dataclass(frozen=True)
class Layout:
    """A project and what is expected of it."""

    files: dict[str, str]
    argv: tuple[str, ...]
    framework: str | None = None
    port: int | None = None
    why: str = ""
    note: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


LAYOUTS = {
    "fastapi in main.py": Layout(
        {"main.py": FASTAPI, "requirements.txt": "fastapi", **venv("fastapi", "uvicorn")},
        (VENV, "-m", "uvicorn", "main:app", "--host", "127.0.0.1", "--port", "8000"),
        "fastapi", 8000, "main.py has the FastAPI app app; run by the environment .venv"),
    "fastapi in a package, by a namespace": Layout(
        {"app/main.py": FASTAPI, "app/routers/users.py": "from fastapi import APIRouter\n",
         "pyproject.toml": "[project]\nname = 'x'\n", **venv("fastapi", "uvicorn")},
        (VENV, "-m", "uvicorn", "app.main:app", "--host", "127.0.0.1", "--port", "8000"),
        "fastapi", 8000),
    "fastapi below src": Layout(
        {"src/shop/__init__.py": "", "src/shop/api.py": FASTAPI, "uv.lock": "",
         **venv("fastapi", "uvicorn")},
        (VENV, "-m", "uvicorn", "shop.api:app", "--host", "127.0.0.1", "--port", "8000"),
        "fastapi", 8000, env={"PYTHONPATH": "src"}),
    "fastapi factory": Layout(
        {"service.py": "from fastapi import FastAPI\ndef create_app() -> FastAPI:\n"
                       "    app = FastAPI()\n    return app\n", **venv("fastapi", "uvicorn")},
        (VENV, "-m", "uvicorn", "--factory", "service:create_app", "--host", "127.0.0.1",
         "--port", "8000"), "fastapi", 8000, "makes the FastAPI app create_app()"),
    "an object made by a factory is taken": Layout(
        {"main.py": "from fastapi import FastAPI\ndef create_app():\n    return FastAPI()\n"
                    "app = create_app()\n", **venv("fastapi", "uvicorn")},
        (VENV, "-m", "uvicorn", "main:app", "--host", "127.0.0.1", "--port", "8000"), "fastapi",
        8000),
    "fastapi without uvicorn": Layout(
        {"main.py": FASTAPI, "uv.lock": "", **venv("fastapi")},
        (VENV, "-m", "uvicorn", "main:app", "--host", "127.0.0.1", "--port", "8000"), "fastapi",
        8000, note="uvicorn is not installed in /project/.venv: uv add 'uvicorn[standard]'"),
    "asgi served by hypercorn": Layout(
        {"main.py": FASTAPI, **venv("fastapi", "hypercorn")},
        (VENV, "-m", "hypercorn", "--bind", "127.0.0.1:8000", "main:app"), "fastapi", 8000),
    "fastapi script that runs uvicorn": Layout(
        {"main.py": "import uvicorn\n" + FASTAPI + "if __name__ == '__main__':\n"
                    "    uvicorn.run('main:app', port=9001, reload=True)\n",
         **venv("fastapi", "uvicorn")},
        (VENV, "main.py"), "fastapi", 9001, "main.py starts uvicorn.run itself",
        "the reloader that uvicorn.run turns on is switched off"),
    "starlette": Layout(
        {"asgi.py": "from starlette.applications import Starlette as S\napplication = S()\n",
         **venv("starlette", "uvicorn")},
        (VENV, "-m", "uvicorn", "asgi:application", "--host", "127.0.0.1", "--port", "8000"),
        "starlette", 8000),
    "bare asgi function": Layout(
        {"web.py": "async def app(scope, receive, send):\n    pass\n", **venv("uvicorn")},
        (VENV, "-m", "uvicorn", "web:app", "--host", "127.0.0.1", "--port", "8000"), "asgi", 8000),
    "quart": Layout(
        {"app.py": "from quart import Quart\napp = Quart(__name__)\n",
         **venv("quart", "hypercorn")},
        (VENV, "-m", "hypercorn", "--bind", "127.0.0.1:8000", "app:app"), "quart", 8000),
    "litestar": Layout(
        {"app.py": "from litestar import Litestar\napp = Litestar([])\n",
         **venv("litestar", "uvicorn")},
        (VENV, "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "8000"), "litestar",
        8000),
    "flask": Layout(
        {"app.py": FLASK, **venv("flask")},
        (VENV, "-m", "flask", "--app", "app:app", "run", "--no-reload", "--port", "5000"),
        "flask", 5000, "app.py has the Flask app app"),
    "flask factory in a package": Layout(
        {"shop/__init__.py": "from flask import Flask\ndef create_app(config=None):\n"
                             "    app = Flask(__name__)\n    return app\n", **venv("flask")},
        (VENV, "-m", "flask", "--app", "shop:create_app()", "run", "--no-reload", "--port",
         "5000"), "flask", 5000),
    "flask script in debug": Layout(
        {"app.py": FLASK + "if __name__ == '__main__':\n    app.run(debug=True)\n",
         **venv("flask")}, (VENV, "app.py"), "flask", 5000,
        note="the reloader that app.run turns on is switched off"),
    "flask by .flaskenv": Layout(
        {"shop.py": FLASK, ".flaskenv": "FLASK_APP=shop\nFLASK_DEBUG=1\nFLASK_RUN_PORT=5050\n",
         **venv("flask")},
        (VENV, "-m", "flask", "--app", "shop", "run", "--no-reload", "--port", "5050"), "flask",
        5050, "FLASK_APP=shop in .flaskenv", "(FLASK_DEBUG) is switched off"),
    "flask by FLASK_APP": Layout(
        {"shop.py": FLASK, **venv("flask")},
        (VENV, "-m", "flask", "--app", "shop:app", "run", "--no-reload", "--port", "5000"),
        "flask", 5000, environ={"FLASK_APP": "shop:app"}),
    "django": Layout(
        {"manage.py": "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'x.settings')\n",
         "x/settings.py": "", "x/wsgi.py": "from django.core.wsgi import get_wsgi_application\n"
                                           "application = get_wsgi_application()\n",
         **venv("django")},
        (VENV, "manage.py", "runserver", "--noreload", "127.0.0.1:8000"), "django", 8000,
        note="Django's own reloader is switched off"),
    "aiohttp script": Layout(
        {"server.py": "from aiohttp import web\napp = web.Application()\n"
                      "if __name__ == '__main__':\n    web.run_app(app)\n", **venv("aiohttp")},
        (VENV, "server.py"), "aiohttp", 8080),
    "aiohttp object": Layout(
        {"web.py": "from aiohttp import web\napp = web.Application()\n", **venv("aiohttp")},
        (VENV, "-c", AIOHTTP_LINE), "aiohttp", 8080),
    "falcon by gunicorn": Layout(
        {"app.py": "import falcon\napp = falcon.App()\n", **venv("falcon", "gunicorn")},
        (VENV, "-m", "gunicorn", "--bind", "127.0.0.1:8000", "app:app"), "falcon", 8000),
    "wsgi by waitress": Layout(
        {"wsgi.py": "def application(environ, start_response):\n    return []\n",
         **venv("waitress")},
        (VENV, "-m", "waitress", "--listen", "127.0.0.1:8000", "wsgi:application"), "wsgi", 8000),
    "wsgi by the library": Layout(
        {"app.py": "import bottle\napp = bottle.Bottle()\n", **venv("bottle")},
        (VENV, "-c", WSGIREF_LINE), "bottle", 8000,
        note="Python's own wsgiref serves it"),
    "plain server with a literal port": Layout(
        {"app.py": "import http.server\nPORT = 8123\n"
                   "http.server.ThreadingHTTPServer(('', PORT), None).serve_forever()\n", **SYSTEM},
        (PY, "app.py"), None, 8123, "app.py serves; run by python3 on PATH"),
    "plain server that reads PORT": Layout(
        {"app.py": "import http.server, os\nhttp.server.ThreadingHTTPServer(\n"
                   "    ('127.0.0.1', int(os.environ['PORT'])), None).serve_forever()\n", **SYSTEM},
        (PY, "app.py"), None, 8000),
    "PORT with a default": Layout(
        {"app.py": "import os, socketserver\nport = int(os.environ.get('PORT', 7000))\n"
                   "socketserver.TCPServer(('', port), None).serve_forever()\n", **SYSTEM},
        (PY, "app.py"), None, 7000),
    "plain script": Layout(
        {"job.py": "def main():\n    pass\nif __name__ == '__main__':\n    main()\n", **SYSTEM},
        (PY, "job.py"), None, None, "job.py is a main program"),
    "package with __main__": Layout(
        {"bot/__init__.py": "", "bot/__main__.py": "print('hi')\n", **SYSTEM},
        (PY, "-m", "bot"), None, None, "bot/__main__.py makes bot a program"),
    "package with __main__ below src": Layout(
        {"src/bot/__init__.py": "", "src/bot/__main__.py": "print('hi')\n", **SYSTEM},
        (PY, "-m", "bot"), env={"PYTHONPATH": "src"}),
    "project.scripts, not installed": Layout(
        {"pyproject.toml": "[project]\nname = 'tool'\n[project.scripts]\ntool = 'tool.cli:main'\n",
         "tool/__init__.py": "", "tool/cli.py": "def main():\n    pass\n", **SYSTEM},
        (PY, "-c", "import sys; from tool.cli import main as main; sys.exit(main())"), None, None,
        "pyproject.toml names the script tool"),
    "project.scripts, installed": Layout(
        {"pyproject.toml": "[project]\nname = 'tool'\n[project.scripts]\ntool = 'tool.cli:main'\n",
         "tool/__init__.py": "", "tool/cli.py": "def main():\n    pass\n",
         ".venv/bin/tool": "#!/project/.venv/bin/python\n", **venv()},
        ("/project/.venv/bin/tool",)),
    "project.scripts that serves": Layout(
        {"pyproject.toml": "[project]\nname = 'tool'\n[project.scripts]\ntool = 'tool.cli:main'\n",
         "src/tool/__init__.py": "", "src/tool/cli.py":
         "from http.server import HTTPServer, SimpleHTTPRequestHandler\n"
         "def main():\n    HTTPServer(('', 8203), SimpleHTTPRequestHandler).serve_forever()\n",
         ".venv/bin/tool": "#!/project/.venv/bin/python\n", **venv()},
        ("/project/.venv/bin/tool",), None, 8203, "pyproject.toml names the script tool"),
    "poetry's own environment": Layout(
        {"main.py": FASTAPI, "poetry.lock": "",
         "/home/u/.cache/pypoetry/virtualenvs/x-6gE1vKXj-py3.11/bin/python": "", **SYSTEM},
        ("/home/u/.cache/pypoetry/virtualenvs/x-6gE1vKXj-py3.11/bin/python", "-m", "uvicorn",
         "main:app", "--host", "127.0.0.1", "--port", "8000"), "fastapi", 8000),
    "pipenv's own environment": Layout(
        {"app.py": FLASK, "Pipfile": "",
         "/home/u/.local/share/virtualenvs/p-1/.project": "/elsewhere",
         "/home/u/.local/share/virtualenvs/p-1/bin/python": "",
         "/home/u/.local/share/virtualenvs/p-2/.project": "/project\n",
         "/home/u/.local/share/virtualenvs/p-2/bin/python": "", **SYSTEM},
        ("/home/u/.local/share/virtualenvs/p-2/bin/python", "-m", "flask", "--app", "app:app",
         "run", "--no-reload", "--port", "5000"), "flask", 5000),
    "conda by its name": Layout(
        {"app.py": FLASK, "environment.yml": "name: shop\ndependencies:\n  - flask\n",
         "/home/u/miniforge3/envs/shop/bin/python": "", **SYSTEM},
        ("/home/u/miniforge3/envs/shop/bin/python", "-m", "flask", "--app", "app:app", "run",
         "--no-reload", "--port", "5000"), "flask", 5000,
        "run by the conda environment shop"),
    "CONDA_PREFIX": Layout(
        {"job.py": "print('hi')\n", "/opt/conda/envs/e/bin/python": "", **SYSTEM},
        ("/opt/conda/envs/e/bin/python", "job.py"),
        environ={"CONDA_PREFIX": "/opt/conda/envs/e"}),
    "VIRTUAL_ENV": Layout(
        {"job.py": "print('hi')\n", "/opt/v/bin/python": "", **SYSTEM},
        ("/opt/v/bin/python", "job.py"), environ={"VIRTUAL_ENV": "/opt/v"}),
    "an environment whose interpreter is gone": Layout(
        {"job.py": "print('hi')\n", "venv/pyvenv.cfg": "", **SYSTEM}, (PY, "job.py")),
    "a folder named venv": Layout(
        {"job.py": "print('hi')\n", **venv(name="venv")}, ("/project/venv/bin/python", "job.py")),
    "pyenv's shim": Layout(
        {"job.py": "print('hi')\n", ".python-version": "3.12\n",
         "/home/u/.pyenv/shims/python3": "#!/bin/sh\n",
         "/home/u/.pyenv/versions/3.12.1/bin/python3": "",
         "/home/u/.pyenv/versions/3.12.10/bin/python3": "", **SYSTEM},
        ("/home/u/.pyenv/versions/3.12.10/bin/python3", "job.py"),
        environ={"PATH": "/home/u/.pyenv/shims:/usr/bin"}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_is_run_as_expected(name: str) -> None:
    layout = LAYOUTS[name]
    found = PACK.detect(MemoryView(layout.files), {**PATH, **layout.environ})
    assert found is not None
    assert found.command.argv == layout.argv
    assert (found.framework, found.port) == (layout.framework, layout.port)
    assert layout.why in found.why
    assert layout.note in " ".join(found.notes)
    assert bool(layout.note) == bool(found.notes)
    assert found.command.env == layout.env
    assert found.interpreter is not None
    assert found.interpreter == layout.argv[0] or layout.argv[0].startswith("/project/.venv/bin/")


@pytest.mark.parametrize("given", [{}, {"HOME": ""}])
def test_without_home_it_is_the_users_own(given: dict[str, str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    layout = LAYOUTS["poetry's own environment"]
    found = PACK.detect(MemoryView(layout.files), {"PATH": PATH["PATH"], **given})
    assert found is not None
    assert found.command.argv == layout.argv


@pytest.mark.parametrize("files", [
    {}, {"index.js": "", "package.json": "{}"}, {"README.md": "# x"},
    {"pyproject.toml": "[project]\nname = 'lib'\n", "src/lib/__init__.py": "x = 1\n"},
    {"broken.py": "def x(:\n", "other.py": ""},
])
def test_nothing_to_run_is_nothing(files: dict[str, str]) -> None:
    assert PACK.detect(MemoryView({**files, **SYSTEM}), PATH) is None


def test_no_python_at_all_is_nothing() -> None:
    assert PACK.detect(MemoryView({"app.py": FLASK}), {"PATH": "/nowhere"}) is None


@dataclass(frozen=True)
class Given:
    """A command of the user and what becomes of it."""

    command: tuple[str, ...]
    argv: tuple[str, ...]
    framework: str | None = None
    port: int | None = None
    note: str = ""


GIVEN = {
    "uvicorn --reload": Given(
        ("uvicorn", "main:app", "--reload", "--reload-dir", "src", "--port", "9000"),
        ("/project/.venv/bin/uvicorn", "main:app", "--port", "9000"), "uvicorn", 9000,
        "uvicorn's own reloader (--reload) is switched off"),
    "uv run": Given(("uv", "run", "uvicorn", "main:app"),
                    ("/project/.venv/bin/uvicorn", "main:app"), "uvicorn", 8000,
                    "uv run is left out"),
    "uv run of a script": Given(("uv", "run", "app.py"), (VENV, "app.py"),
                                note="uv run is left out"),
    "uv run with options stays": Given(("uv", "run", "--with", "rich", "app.py"),
                                       ("uv", "run", "--with", "rich", "app.py")),
    "poetry run --": Given(("poetry", "run", "--", "python", "app.py"), (VENV, "app.py"),
                           note="poetry run is left out"),
    "fastapi dev": Given(("fastapi", "dev", "main.py"),
                         ("/project/.venv/bin/fastapi", "dev", "--no-reload", "main.py"),
                         "fastapi", 8000, "(fastapi dev) is switched off"),
    "flask run --debug": Given(
        ("flask", "--app", "x", "run", "--debug", "-p", "5001"),
        ("/project/.venv/bin/flask", "--app", "x", "run", "--no-reload", "--debug", "-p", "5001"),
        "flask", 5001, "flask's own reloader (--debug) is switched off"),
    "flask run": Given(("flask", "run"), ("/project/.venv/bin/flask", "run", "--no-reload"),
                       "flask", 5000),
    "django": Given(("python", "manage.py", "runserver", "0.0.0.0:9090"),
                    (VENV, "manage.py", "runserver", "--noreload", "0.0.0.0:9090"), "django", 9090,
                    "django's own reloader (runserver) is switched off"),
    "gunicorn --reload": Given(
        ("gunicorn", "--reload", "-b", "127.0.0.1:8123", "-w", "2", "x:app"),
        ("/project/.venv/bin/gunicorn", "-b", "127.0.0.1:8123", "-w", "2", "x:app"), "gunicorn",
        8123, "gunicorn's own reloader"),
    "hypercorn --reload": Given(("hypercorn", "--reload", "x:app"),
                                ("/project/.venv/bin/hypercorn", "x:app"), "hypercorn", 8000,
                                "hypercorn's own reloader"),
    "python -X dev -m": Given(("python", "-X", "dev", "-m", "http.server", "8080"),
                              (VENV, "-X", "dev", "-m", "http.server", "8080"), "http.server",
                              8080),
    "a script that serves": Given(("python3", "srv.py"), (VENV + "3", "srv.py"), "flask", 5000),
    "through the shell": Given(("/bin/sh", "-c", "python3 app.py; true"),
                               ("/bin/sh", "-c", "python3 app.py; true")),
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_given_command_is_completed(name: str) -> None:
    given = GIVEN[name]
    scripts = {f".venv/bin/{one}": "#!/project/.venv/bin/python\n"
               for one in ("uvicorn", "flask", "gunicorn", "hypercorn", "fastapi", "python3")}
    srv = FLASK + "if __name__ == '__main__':\n    app.run()\n"
    view = MemoryView({**venv(), **scripts, "srv.py": srv, "/usr/bin/uv": "#!/usr/bin/python\n"})
    found = PACK.complete(view, PATH, Command(given.command, {"A": "1"}, "sub"))
    assert found.command == Command(given.argv, {"A": "1"}, "sub")
    assert (found.framework, found.port) == (given.framework, given.port)
    assert given.note in " ".join(found.notes)
    assert bool(given.note) == bool(found.notes)
    assert found.interpreter == VENV


@pytest.mark.parametrize("argv", [("node", "server.js"), ("./run.sh",), ("make", "serve"), (),
                                  ("/bin/sh", "-c", "npm start")])
def test_a_command_of_another_language_is_refused(argv: tuple[str, ...]) -> None:
    view = MemoryView({**SYSTEM, "run.sh": "#!/bin/sh\n", "/usr/bin/node": "\x7fELF"})
    with pytest.raises(PackError, match="is not a Python program"):
        PACK.complete(view, PATH, Command(argv))


def test_a_reloader_in_the_environment_is_named() -> None:
    view = MemoryView({**venv(), "app.py": FLASK})
    found = PACK.complete(view, {**PATH, "FLASK_DEBUG": "1"}, Command(("python", "app.py")))
    assert "FLASK_DEBUG asks for a server's own reloader" in found.notes[0]


def test_the_search_path_of_the_user_stays_behind_ours() -> None:
    view = MemoryView({"src/shop/__init__.py": "", "src/shop/api.py": FASTAPI,
                       **venv("fastapi", "uvicorn")})
    found = PACK.detect(view, {**PATH, "PYTHONPATH": "/opt/lib"})
    assert found is not None
    assert found.command.env == {"PYTHONPATH": "src:/opt/lib"}


def test_a_given_command_for_a_module_below_src_finds_it() -> None:
    view = MemoryView({"src/shop/__init__.py": "", "src/shop/api.py": FASTAPI, **venv("uvicorn")})
    for argv in (("uvicorn", "shop.api:app"), ("python", "-m", "shop"),
                 ("python", "-c", "from shop.api import app")):
        found = PACK.complete(view, PATH, Command(argv))
        assert found.command.env == {"PYTHONPATH": "src"}
    assert PACK.complete(view, PATH, Command(("python", "app.py"))).command.env == {}


def test_an_environment_of_the_projects_own_is_active_for_all_that_is_started() -> None:
    view = MemoryView({"app.py": FASTAPI, **venv("fastapi", "uvicorn")})
    shell = ("/bin/sh", "-c", "cd . && python -m uvicorn app:app")
    found = PACK.complete(view, PATH, Command(shell))
    env = PACK.launch(view, found, 8000, "/code").env
    assert (env["PATH"], env["VIRTUAL_ENV"]) == ("/project/.venv/bin", "/project/.venv")
    own = PACK.complete(view, PATH, Command(("uvicorn", "app:app"), {"PATH": "/opt/bin"}))
    assert PACK.launch(view, own, 8000, "/code").env["PATH"] == "/project/.venv/bin:/opt/bin"
    system = MemoryView({"app.py": FASTAPI, **SYSTEM})
    found = PACK.complete(system, PATH, Command(("python3", "app.py")))
    assert "PATH" not in PACK.launch(system, found, 8000, "/code").env


def test_a_given_python_that_is_pyenvs_stand_in_is_the_interpreter_behind_it() -> None:
    layout = LAYOUTS["pyenv's shim"]
    found = PACK.complete(MemoryView(layout.files), {**PATH, **layout.environ},
                          Command(("python3", "-m", "http.server", "8333")))
    assert found.command.argv == ("/home/u/.pyenv/versions/3.12.10/bin/python3", "-m",
                                  "http.server", "8333")
    assert found.port == 8333
