"""Understands a command line: what it runs, on which port, and with whose reloader.

Reloaders are switched off here where the command line turns them on; what programs say in their
code is the shim's to switch off (``runtime/servers.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hyperbox_langpacks.python.runtime.argv import looks_like_python, read_arguments

RUNNERS: Mapping[str, tuple[str, ...]] = {
    "uv": ("run",), "poetry": ("run",), "pipenv": ("run",), "pdm": ("run",), "hatch": ("run",),
    "rye": ("run",)}
"""Tools that start a command in the project's environment, and the verb that does it."""

DEFAULT_PORTS: Mapping[str, int] = {
    "uvicorn": 8000, "gunicorn": 8000, "hypercorn": 8000, "granian": 8000, "daphne": 8000,
    "waitress-serve": 8080, "flask": 5000, "fastapi": 8000, "quart": 5000, "litestar": 8000,
    "django": 8000, "sanic": 8000, "http.server": 8000, "aiohttp.web": 8080, "streamlit": 8501}

SERVERS: Mapping[str, str] = {
    "uvicorn": "uvicorn", "gunicorn": "gunicorn", "hypercorn": "hypercorn", "granian": "granian",
    "daphne": "daphne", "waitress": "waitress-serve", "waitress-serve": "waitress-serve",
    "flask": "flask", "fastapi": "fastapi", "quart": "quart", "litestar": "litestar",
    "django": "django", "django-admin": "django", "sanic": "sanic", "http.server": "http.server",
    "aiohttp.web": "aiohttp.web", "streamlit": "streamlit"}
"""Console scripts and modules by the server that they are."""

_FLAGS: Mapping[str, tuple[str, ...]] = {
    "uvicorn": ("--reload", "--reload-dir=", "--reload-include=", "--reload-exclude=",
                "--reload-delay="),
    "gunicorn": ("--reload", "--reload-engine=", "--reload-extra-file="),
    "hypercorn": ("--reload",),
    "granian": ("--reload", "--reload-paths=", "--reload-ignore-dirs=", "--reload-tick="),
    "flask": ("--reload", "--reloader-type=", "--extra-files="),
    "quart": ("--reload",),
    "litestar": ("--reload", "-r", "--reload-dir=", "--reload-include=", "--reload-exclude="),
    "sanic": ("--auto-reload", "--reload", "-r", "--reload-dir=", "-R="),
    "fastapi": ("--reload", "--reload-dir="),
}
"""Flags that turn a reloader on; with ``=`` those that take a value."""


class Parsed(NamedTuple):
    """A command line taken apart."""

    argv: tuple[str, ...]
    server: str | None = None
    """One of ``SERVERS``' values."""
    kind: str = "script"
    """``script``, ``module``, ``console``, ``command``, ``shell`` or ``other``."""
    target: str = ""
    """The script's path, the module's name or the console script's."""
    arguments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """The interpreter's own options."""


def parse_command(argv: Sequence[str]) -> Parsed:
    """Take a command line apart. Pure: no file is looked at."""
    argv = tuple(argv)
    program = os.path.basename(argv[0]) if argv else ""
    if program in ("sh", "bash", "dash", "zsh") and "-c" in argv:
        return Parsed(argv, None, "shell", argv[-1] if len(argv) < 3 else argv[2])
    if looks_like_python(program):
        return _parse_interpreter(argv)
    server = SERVERS.get(program)
    if argv and argv[0].endswith(".py"):
        return Parsed(argv, _server_of_script(argv[0]), "script", argv[0], argv[1:])
    return Parsed(argv, server, "console" if argv else "other", program, argv[1:])


def _parse_interpreter(argv: tuple[str, ...]) -> Parsed:
    invocation = read_arguments(argv[1:])
    kind = {"script": "script", "module": "module", "command": "command"}.get(
        invocation.kind, "other")
    if kind == "module":
        server = SERVERS.get(invocation.target)
    else:
        server = SERVERS.get(os.path.basename(invocation.target)) if kind == "script" else None
        server = server or _server_of_script(invocation.target)
    return Parsed(argv, server, kind, invocation.target, invocation.arguments, invocation.options)


def _server_of_script(path: str) -> str | None:
    return "django" if os.path.basename(path) == "manage.py" else None


def unwrap_runner(argv: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """A command without ``uv run`` and its like in front, and that runner's words.

    Only where the runner has no options of its own: those may change what is run.
    """
    argv = tuple(argv)
    runner = os.path.basename(argv[0]) if argv else ""
    verbs = RUNNERS.get(runner)
    if verbs is None or len(argv) < 3 or argv[1] not in verbs:
        return argv, None
    rest = argv[2:]
    if rest[0] == "--":
        rest = rest[1:]
    if not rest or rest[0].startswith("-"):
        return argv, None
    if runner == "uv" and rest[0].endswith((".py", ".pyw")):
        rest = ("python", *rest)  # as uv does
    return rest, f"{runner} {argv[1]}"


# ---------------------------------------------------------------------------------- reloaders


def without_reloader(parsed: Parsed) -> tuple[Parsed, tuple[str, ...]]:
    """The command with its reloader off, and a sentence for the user about each change."""
    quiet = _QUIETED.get(parsed.server or "", _drop_flags)
    arguments, what = quiet(parsed)
    if arguments == parsed.arguments:
        return parsed, ()
    head = parsed.argv[:len(parsed.argv) - len(parsed.arguments)]
    changed = parsed._replace(argv=(*head, *arguments), arguments=arguments)
    note = f"{parsed.server}'s own reloader ({what}) is switched off: HyperBox reloads"
    return changed, (note,) if what else ()


def _drop_flags(parsed: Parsed) -> tuple[tuple[str, ...], str]:
    flags = _FLAGS.get(parsed.server or "", ())
    kept: list[str] = []
    dropped: list[str] = []
    rest = list(parsed.arguments)
    while rest:
        one = rest.pop(0)
        if one in flags:
            dropped.append(one)
        elif one + "=" in flags:
            rest[:1] = []
        elif not any(one.startswith(flag) for flag in flags if flag.endswith("=")):
            kept.append(one)
    return tuple(kept), dropped[0] if dropped else ""


def _quiet_flask(parsed: Parsed) -> tuple[tuple[str, ...], str]:
    """``flask run`` takes ``--no-reload``; with ``--debug`` it would reload by default."""
    arguments, dropped = _drop_flags(parsed)
    if "run" not in arguments or "--no-reload" in arguments:
        return arguments, dropped
    place = arguments.index("run") + 1
    what = dropped or ("--debug" if "--debug" in arguments else "")
    return (*arguments[:place], "--no-reload", *arguments[place:]), what


def _quiet_django(parsed: Parsed) -> tuple[tuple[str, ...], str]:
    arguments = parsed.arguments
    if "runserver" not in arguments or "--noreload" in arguments:
        return arguments, ""
    place = arguments.index("runserver") + 1
    return (*arguments[:place], "--noreload", *arguments[place:]), "runserver"


def _quiet_fastapi(parsed: Parsed) -> tuple[tuple[str, ...], str]:
    arguments, dropped = _drop_flags(parsed)
    if arguments[:1] == ("dev",) and "--no-reload" not in arguments:
        return ("dev", "--no-reload", *arguments[1:]), "fastapi dev"
    return arguments, dropped


_QUIETED: Mapping[str, Callable[[Parsed], tuple[tuple[str, ...], str]]] = {
    "flask": _quiet_flask, "django": _quiet_django, "fastapi": _quiet_fastapi}

RELOAD_VARIABLES: Mapping[str, str] = {
    "FLASK_DEBUG": "flask", "UVICORN_RELOAD": "uvicorn", "LITESTAR_RELOAD": "litestar",
    "GRANIAN_RELOAD": "granian", "QUART_DEBUG": "quart"}
"""Variables that turn a reloader on, and whose."""


def reload_in_environment(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of variables that are set so that a server would reload by itself."""
    found = [name for name in RELOAD_VARIABLES
             if environ.get(name, "").lower() in ("1", "true", "yes", "on")]
    if "--reload" in environ.get("GUNICORN_CMD_ARGS", ""):
        found.append("GUNICORN_CMD_ARGS")
    return tuple(found)


# -------------------------------------------------------------------------------------- ports

_PORT_FLAGS: Mapping[str, tuple[str, ...]] = {
    "uvicorn": ("--port",), "gunicorn": ("-b", "--bind"), "hypercorn": ("-b", "--bind"),
    "granian": ("--port",), "daphne": ("-p", "--port"), "waitress-serve": ("--port", "--listen"),
    "flask": ("-p", "--port"), "fastapi": ("--port",), "quart": ("-p", "--port"),
    "litestar": ("-p", "--port"), "sanic": ("-p", "--port"), "aiohttp.web": ("-P", "--port"),
    "streamlit": ("--server.port",)}


def port_of(parsed: Parsed, environ: Mapping[str, str]) -> int | None:
    """The port that a command line names, else the server's own default; None if unknown."""
    if parsed.server is None:
        return None
    for flag in _PORT_FLAGS.get(parsed.server, ()):
        value = _value_of(parsed.arguments, flag)
        if value is not None:
            return _port_in(value)
    if parsed.server in ("django", "http.server"):
        return _positional_port(parsed)
    if parsed.server == "flask" and environ.get("FLASK_RUN_PORT", "").isdigit():
        return int(environ["FLASK_RUN_PORT"])
    if parsed.server == "gunicorn" and environ.get("PORT", "").isdigit():
        return int(environ["PORT"])
    return DEFAULT_PORTS.get(parsed.server)


BIND_THEMSELVES = frozenset(("granian",))
"""Servers that bind outside Python, where no shim can map it: they are given a port."""


def with_port(parsed: Parsed, port: str) -> tuple[str, ...]:
    """The command line with this port in place of its own."""
    flag = _PORT_FLAGS[parsed.server or ""][0]
    head = parsed.argv[:len(parsed.argv) - len(parsed.arguments)]
    kept, rest = [], list(parsed.arguments)
    while rest:
        one = rest.pop(0)
        if one == flag:
            rest[:1] = []
        elif not one.startswith(flag + "="):
            kept.append(one)
    return (*head, flag, port, *kept)


def _value_of(arguments: Sequence[str], flag: str) -> str | None:
    for place, one in enumerate(arguments):
        if one == flag:
            return arguments[place + 1] if place + 1 < len(arguments) else None
        if one.startswith(flag + "="):
            return one[len(flag) + 1:]
        if len(flag) == 2 and one.startswith(flag) and len(one) > 2:
            return one[2:]
    return None


def _port_in(value: str) -> int | None:
    port = value.rpartition(":")[2]
    return int(port) if port.isdecimal() and port.isascii() else None


def _positional_port(parsed: Parsed) -> int | None:
    if parsed.server == "django" and "runserver" not in parsed.arguments:
        return None
    rest = [one for one in parsed.arguments if not one.startswith("-") and one != "runserver"]
    ports = [port for one in rest if (port := _port_in(one)) is not None]
    return ports[0] if ports else 8000
