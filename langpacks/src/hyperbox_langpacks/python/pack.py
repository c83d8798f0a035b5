"""The Python pack: puts the parts of this folder behind the ``Pack`` protocol."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence

from hyperbox_langpacks.base import (
    Command,
    Detection,
    FileChange,
    InstallPlan,
    LaunchSpec,
    PackError,
    ProjectView,
    RunFacts,
    RungChoice,
    WorkerSpec,
)
from hyperbox_langpacks.python.commands import (
    BIND_THEMSELVES,
    Parsed,
    parse_command,
    port_of,
    reload_in_environment,
    unwrap_runner,
    with_port,
    without_reloader,
)
from hyperbox_langpacks.python.environment import (
    Environment,
    environment_of,
    find_environment,
    own_folder,
)
from hyperbox_langpacks.python.files import shim_folder
from hyperbox_langpacks.python.frameworks import choose_start
from hyperbox_langpacks.python.install import plan_install, plan_making
from hyperbox_langpacks.python.rungs import choose, surroundings
from hyperbox_langpacks.python.searchpath import (
    entries_of,
    search_entries,
    source_folder,
    with_search_path,
)
from hyperbox_langpacks.python.sources import RUN_METHODS, candidate_files, read_source

_PORT_IN_CODE = r"(?:\bport=|127\.0\.0\.1', )(\d{2,5})\b"
NOT_JSON = (".vscode/", ".devcontainer/", "tests/", "test/", "tsconfig", "jsconfig")
"""Data files that have comments, or are broken on purpose."""


class PythonPack:
    """See ``hyperbox_langpacks.base.Pack``."""

    name = "python"

    def detect(self, view: ProjectView, environ: Mapping[str, str]) -> Detection | None:
        """What this project is in Python, or None."""
        if not _looks_like_python(view):
            return None
        try:
            environment = find_environment(view, environ)
        except PackError:
            return None
        choice = choose_start(view, environ, environment)
        if choice is None:
            return None
        argv = (choice.console,) if choice.console else (environment.interpreter, *choice.arguments)
        command = Command(argv, with_search_path(choice.env or {}, environ))
        why = f"{choice.why}; run by {environment.why}"
        return Detection(self.name, command, why, choice.certainty, choice.framework, choice.port,
                         None, environment.interpreter, None, choice.notes,
                         own_folder(view, environment))

    def complete(self, view: ProjectView, environ: Mapping[str, str],
                 command: Command) -> Detection:
        """The user's command with what can be known about it. Raises PackError: not Python's."""
        unwrapped, runner = unwrap_runner(command.argv)
        parsed = parse_command(unwrapped)
        pinned = environment_of(view, parsed.argv[0] if parsed.argv else "")
        environment = pinned or find_environment(view, {**environ, **command.env})
        _check_ours(view, environ, environment, parsed)
        notes: tuple[str, ...] = ()
        if runner is not None and environment.is_own:
            notes = (f"{runner} is left out: the program is started in {environment.prefix}",)
        else:
            parsed = parse_command(command.argv) if runner else parsed
        parsed, more = without_reloader(parsed)
        argv = _absolute(view, environ, environment, parsed)
        notes += more + _environment_notes({**environ, **command.env})
        framework, port = _of_command(view, {**environ, **command.env}, parsed)
        own = source_folder(view, (parsed.target, *parsed.arguments))
        env = with_search_path(command.env, environ, own)
        return Detection(self.name, Command(argv, env, command.cwd),
                         f"the command is given; run by {environment.why}", 1.0, framework, port,
                         None, environment.interpreter, None, notes,
                         own_folder(view, environment), pinned is not None)

    def wants_gate(self, path: str) -> bool:
        """Python source, and the data files that a Python project reads."""
        if path.endswith((".py", ".pyw")):
            return True
        if path.startswith(NOT_JSON) or "/tests/" in path:
            return False
        return path.endswith((".json", ".toml", ".yaml", ".yml"))

    def worker(self, view: ProjectView, found: Detection, code_dir: str) -> WorkerSpec | None:
        """The worker in the project's own interpreter, with the same options as the program."""
        if found.interpreter is None:
            return None
        parsed = parse_command(_launched(found.command.argv, shim_folder(code_dir)))
        main = os.path.join(shim_folder(code_dir), "worker.py")
        spec = {"root": view.root, "code": code_dir, "options": list(parsed.options), "main": main,
                "path": _own_entries(view, found.command, parsed)}
        return WorkerSpec((found.interpreter, *parsed.options, main),
                          {"HYPERBOX_WORKER_SPEC": json.dumps(spec)})

    def launch(self, view: ProjectView, found: Detection, public_port: int | None,
               code_dir: str) -> LaunchSpec:
        """The command as it is; PYTHONPATH brings the shim into every process of the tree."""
        env = dict(found.command.env)
        entries = [shim_folder(code_dir), *search_entries(view, found)]
        env["PYTHONPATH"] = os.pathsep.join(entries)
        env["PYTHONUNBUFFERED"] = "1"
        env.update(_activated(view, found))
        parsed = parse_command(found.command.argv)
        if parsed.server in BIND_THEMSELVES:
            return LaunchSpec(with_port(parsed, "{port}"), env, port_mapped=False)
        return LaunchSpec(_launched(found.command.argv, shim_folder(code_dir)), env,
                          port_mapped=True)

    def choose(self, view: ProjectView, found: Detection, changes: Sequence[FileChange],
               facts: RunFacts) -> RungChoice:
        """See ``rungs.choose``."""
        return choose(changes, facts, surroundings(view))

    def install(self, view: ProjectView, found: Detection,
                changes: Sequence[FileChange]) -> InstallPlan | None:
        """See ``install.plan_install``."""
        return plan_install(view, found, changes)

    def make(self, view: ProjectView, environ: Mapping[str, str],
             found: Detection) -> InstallPlan | None:
        """See ``install.plan_making``."""
        return plan_making(view, environ, found)


def _looks_like_python(view: ProjectView) -> bool:
    named = ("pyproject.toml", "setup.py", "setup.cfg", "Pipfile", "requirements.txt")
    return any(map(view.exists, named)) or bool(candidate_files(view))



def _activated(view: ProjectView, found: Detection) -> dict[str, str]:
    """What activating the project's own environment would set, for all that the command starts."""
    folder = os.path.dirname(found.interpreter or "")
    prefix = os.path.dirname(folder)
    if not folder or not view.exists(os.path.join(prefix, "pyvenv.cfg")):
        return {}
    path = os.pathsep.join(filter(None, (folder, found.command.env.get("PATH"))))
    return {"PATH": path, "VIRTUAL_ENV": prefix}


def _check_ours(view: ProjectView, environ: Mapping[str, str], environment: Environment,
                parsed: Parsed) -> None:
    """Raise PackError for a command that is not Python's."""
    if parsed.kind == "shell":
        words = parsed.target.replace("/", " ").replace("'", " ").replace('"', " ").split()
        if any(word.startswith("python") or parse_command([word]).server for word in words):
            return
    elif parsed.kind in ("script", "module", "command") or parsed.server is not None:
        return
    elif parsed.kind == "console":
        path = _find_program(view, environ, environment, parsed)
        head = view.read_text(path, 256) if path else None
        if head is not None and head.startswith("#!") and "python" in head:
            return
    program = parsed.argv[0] if parsed.argv else ""
    raise PackError(f"{program or 'an empty command'} is not a Python program")


def _find_program(view: ProjectView, environ: Mapping[str, str], environment: Environment,
                  parsed: Parsed) -> str | None:
    program = parsed.argv[0]
    if "/" in program:
        return program
    folders = [environment.scripts] if environment.is_own else []
    folders += [one for one in environ.get("PATH", "").split(os.pathsep) if one.startswith("/")]
    return next((path for folder in folders
                 if view.exists(path := os.path.join(folder, program))), None)


def _absolute(view: ProjectView, environ: Mapping[str, str], environment: Environment,
              parsed: Parsed) -> tuple[str, ...]:
    """The command by the environment's own programs, as if it had been activated."""
    argv = parsed.argv
    if argv[:1] in (("python",), ("python3",)) and "/shims/" in (
            _find_program(view, environ, environment, parsed) or ""):
        # pyenv's stand-in for what it would start; the prepared parent is that interpreter itself.
        return (environment.interpreter, *argv[1:])
    if not environment.is_own or "/" in argv[0] or parsed.kind == "shell":
        return argv
    own = os.path.join(environment.scripts, argv[0])
    return (own, *argv[1:]) if view.exists(own) else argv


def _environment_notes(environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name} asks for a server's own reloader, which is switched off: HyperBox reloads"
                 for name in reload_in_environment(environ))


def _of_command(view: ProjectView, environ: Mapping[str, str],
                parsed: Parsed) -> tuple[str | None, int | None]:
    """Framework and port of a command: by its server, else by what its script says."""
    if parsed.server is not None:
        return parsed.server, port_of(parsed, environ)
    if parsed.kind == "command":
        # Such as detection itself writes, where an app has no server of its own.
        written = re.search(_PORT_IN_CODE, parsed.target)
        return None, int(written[1]) if written else None
    if parsed.kind != "script":
        return None, None
    source = read_source(view, parsed.target)
    if source is None or not source.runs:
        return (source.apps[0].framework if source and source.apps else None), None
    run = source.runs[0]
    named = environ.get("PORT", "")
    port = int(named) if run.reads_port and named.isdigit() else run.port
    framework = run.framework or next((app.framework for app in source.apps), None)
    return framework, port or RUN_METHODS.get(framework or "")


def _own_entries(view: ProjectView, command: Command, parsed: Parsed) -> list[str]:
    """Folders of the tree that the program will have on ``sys.path``."""
    cwd = os.path.normpath(os.path.join(view.root, command.cwd))
    entries = [cwd]
    if parsed.kind == "script":
        entries.append(os.path.dirname(os.path.normpath(os.path.join(cwd, parsed.target))))
    entries += [os.path.join(view.root, one) for one in entries_of(command.env) if one]
    if view.is_dir("src"):
        entries.append(os.path.join(view.root, "src"))
    inside = [one for one in entries if (one + "/").startswith(view.root.rstrip("/") + "/")]
    return list(dict.fromkeys(inside))


def _launched(argv: tuple[str, ...], shim: str) -> tuple[str, ...]:
    """The command as it is, but for interpreters that ignore the environment: by our runner."""
    parsed = parse_command(argv)
    if not _ignores_pythonpath(parsed):
        return argv
    place = 1 + len(parsed.options)
    return (*argv[:place], "-u", os.path.join(shim, "run.py"), *argv[place:])


def _ignores_pythonpath(parsed: Parsed) -> bool:
    """Whether the interpreter was told not to look at the environment (``-I``, ``-E``, ``-S``)."""
    return any(set(option[1:]) & set("IES") for option in parsed.options
               if option.startswith("-") and not option.startswith(("-X", "-W", "--")))
