"""What is measured in ``bench.reload``: each reloader behind the same three calls.

HyperBox is reached only through its command line, as its users reach it.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from bench.apps import Project
from bench.probe import Prober

START_SECONDS = 60.0
STOP_SECONDS = 10.0


class BenchError(Exception):
    """A subject can't be measured; says which and why."""


class Subject(Protocol):
    """A tool that keeps a program running while it is edited."""

    @property
    def name(self) -> str:
        """As the tables say it."""
        ...

    @property
    def framework(self) -> str:
        """One of ``bench.apps.FRAMEWORKS``."""
        ...

    @property
    def own(self) -> bool:
        """Whether it is HyperBox: then the hard edits (broken ones) are part of the load."""
        ...

    @property
    def streams(self) -> Sequence[str]:
        """The streams that are held open under load; none where an open one stops the tool."""
        ...

    def missing(self) -> str | None:
        """What this machine lacks for it, and what brings that; None: nothing."""
        ...

    def start(self, project: Project, port: int) -> None:
        """Make the project's files and return when they answer on ``port``.

        Raises BenchError with the end of the tool's output.
        """
        ...

    def edit(self, project: Project, version: int) -> None:
        """Save one file so that answers with ``version`` are new."""
        ...

    def stop(self) -> None:
        """End everything that was started."""
        ...


def free_port() -> int:
    """A port of loopback that nobody has now.

    Below those that the kernel gives to clients: a client that waits for such a port to be served
    can be given it as its own, and then is connected to itself.
    """
    while True:
        port = random.randint(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a user's terminal: without what this checkout's own tools have set."""
    dropped = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "VIRTUAL_ENV", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items()
            if name not in dropped and not name.startswith("HYPERBOX_")}
    return kept | dict(extra or {})


@dataclass
class Tool:
    """A started command with all that it started, and its output in a file."""

    process: subprocess.Popen[bytes]
    log: Path
    _sink: IO[bytes]

    @classmethod
    def start(cls, argv: Sequence[str], cwd: Path, log: Path,
              env: Mapping[str, str] | None = None) -> Tool:
        """Start it in a session of its own."""
        sink = log.open("wb")
        process = subprocess.Popen(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=sink,
                                   stderr=subprocess.STDOUT, start_new_session=True,
                                   env=clean_environment(env))
        return cls(process, log, sink)

    def tail(self, lines: int = 15) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, first: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, then end the whole group."""
        if self.process.poll() is None:
            self.process.send_signal(first)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._sink.close()


def wait_for_answer(tool: Tool, project: Project, port: int, name: str) -> None:
    """Return when the program answers with the files as they are; BenchError: it does not."""
    prober = Prober(port, keep=False)
    for _ in range(int(START_SECONDS)):
        if prober.until(project.answer, 1.0) is not None:
            return
        if tool.process.poll() is not None:
            break
    text = tool.tail()
    tool.stop()
    raise BenchError(f"{name} did not answer with the app:\n{text}")


@dataclass
class Peer:
    """A reloader that is one command; ``{port}`` in it is the port."""

    name: str
    framework: str
    argv: Sequence[str]
    program: str
    brought_by: str
    streams: Sequence[str] = ()
    own: bool = False
    _tool: Tool | None = field(default=None, init=False)

    def missing(self) -> str | None:
        return None if shutil.which(self.program) else f"{self.program}: {self.brought_by}"

    def start(self, project: Project, port: int) -> None:
        project.create({})
        argv = [word.format(port=port) for word in self.argv]
        self._tool = Tool.start(argv, project.folder, project.folder.parent / "tool.log")
        wait_for_answer(self._tool, project, port, self.name)

    def edit(self, project: Project, version: int) -> None:
        project.write_app(version)

    def stop(self) -> None:
        if self._tool is not None:
            self._tool.stop()


COMMANDS = {
    "stdlib": "[{python!r}, 'app.py', '{port}']",
    "fastapi": "[{python!r}, '-m', 'uvicorn', 'app:app', '--port', '{port}', "
               "'--no-access-log', '--log-level', 'warning']",
    "flask": "[{python!r}, '-m', 'flask', '--app', 'app', 'run', '--port', '{port}']",
}
CONFIG = '''[app]
command = {command}
port = {port}
env_file = ".env"
'''


@dataclass
class HyperBox:
    """``hyperbox up`` in place. ``rung`` is the way of reloading that its edits need."""

    framework: str
    rung: str
    python: str = sys.executable
    own: bool = True
    _tool: Tool | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return f"HyperBox, {self.rung}"

    @property
    def streams(self) -> Sequence[str]:
        return {"fastapi": ("events", "websocket")}.get(self.framework, ("events",))

    def missing(self) -> str | None:
        return None if shutil.which("hyperbox") else "hyperbox: uv sync --all-packages"

    def start(self, project: Project, port: int) -> None:
        command = COMMANDS[self.framework].format(python=self.python, port=port)
        project.create({"hyperbox.toml": CONFIG.format(command=command, port=port), ".env": ""})
        base = project.folder.parent
        homes = {f"XDG_{name}_HOME": str(base / name.lower())
                 for name in ("STATE", "CONFIG", "CACHE", "DATA")}
        self._tool = Tool.start(["hyperbox", "up", "--json", str(project.folder)], project.folder,
                                base / "tool.log", homes)
        wait_for_answer(self._tool, project, port, self.name)

    def edit(self, project: Project, version: int) -> None:
        if self.rung == "cold":
            project.write_environment(version)
        else:
            project.write_app(version)

    def stop(self) -> None:
        if self._tool is not None:
            self._tool.stop(signal.SIGINT)


def newer_python_peer(scratch: Path, uv: str, python: str | None) -> Peer:
    """uvicorn-hmr in an environment of its own: it needs Python 3.12."""
    folder = scratch / "hmr-environment"
    if python is not None:
        for argv in ([uv, "venv", "--quiet", "--python", python, str(folder)],
                     [uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"),
                      "uvicorn-hmr", "fastapi", "uvicorn[standard]"]):
            subprocess.run(argv, check=False)
    program = str(folder / "bin/uvicorn-hmr")
    return Peer("uvicorn-hmr", "fastapi",
                [program, "app:app", "--port", "{port}", "--log-level", "warning"], program,
                "a Python 3.12 or newer, for an environment of its own")


def peers() -> list[Peer]:
    """The reloaders that this environment has, uvicorn-hmr aside."""
    bench = "uv sync --all-packages --group bench"
    return [
        Peer("watchfiles", "stdlib", ["watchfiles", "--filter", "python",
                                      f"{sys.executable} app.py {{port}}"], "watchfiles", bench),
        Peer("uvicorn --reload", "fastapi",
             ["uvicorn", "app:app", "--reload", "--port", "{port}", "--no-access-log",
              "--log-level", "warning"], "uvicorn", bench),
        Peer("gunicorn --reload", "flask",
             ["gunicorn", "--reload", "--worker-class", "gthread", "--threads", "8", "--bind",
              "127.0.0.1:{port}", "app:app"], "gunicorn", bench),
        Peer("flask run --debug", "flask",
             ["flask", "--app", "app", "run", "--debug", "--port", "{port}"], "flask", bench),
    ]
