"""What whole journeys need: a project, ``hyperbox`` as a user runs it, and a steady client.

Everything goes through the public command line and real sockets.
"""

from __future__ import annotations

import atexit
import functools
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hyperbox_agent.apply.home import default_home
from hyperbox_devcontainer.target import bootstrap
from hyperbox_devcontainer.target.archive import build_archive

BASE_APP = '''\
import http.server, os, ver
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        b = ver.V.encode()
        self.send_response(200); self.send_header("Content-Length", str(len(b))); self.end_headers()
        self.wfile.write(b)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
'''
"""The base app of the cases: answers with ``ver.V``."""

STEADY_SECONDS = 30.0
"""How long one answer may take a steady client, whatever the load of the machine."""
HYPERBOX = (sys.executable, "-m", "hyperbox_tui.cli.main")
PATIENCE = 60.0
VERB_SECONDS = 120.0
"""For a whole verb: twice what ``flush`` itself waits, so that its own words are what one sees."""


def free_port() -> int:
    """A port of the loopback that nobody holds now.

    Outside the range that the kernel gives to clients (ip(7), ip_local_port_range): there one may
    be taken by an outgoing connection between this look and the start of the program.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Project:
    """A project folder with the base app in it, and the environment that its verbs run in."""

    def __init__(self, folder: Path, *, mode: str = "in-place", git: bool = True,
                 extra: str = "", command: Sequence[str] | str | None = None,
                 tree: Path | None = None, landed: bool = True) -> None:
        """``landed``: the agent stands beside the default tree, as an earlier start left it."""
        self.root = folder / "p"
        self.root.mkdir(parents=True)
        self.port = free_port()
        self.mode = mode
        self.tree = tree or (folder / "T" if mode == "mirror" else self.root)
        self.env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"),
                    "XDG_CONFIG_HOME": str(folder / "config"), "HOME": str(folder),
                    "GIT_CONFIG_GLOBAL": os.devnull, "NO_COLOR": "1"}
        if mode == "mirror" and tree is None and landed:
            agent = Path(default_home(str(self.tree)), "agent")
            agent.parent.mkdir(mode=0o700)
            shutil.copytree(landed_agent(), agent, copy_function=os.link)
        if git:
            self.git("init", "-q")
        self.write("ver.py", 'V = "v1"\n')
        self.write("app.py", BASE_APP)
        run = command if command is not None else [sys.executable, "app.py"]
        target = (f'[target.process]\nkind = "process"\nmode = "mirror"\n'
                  f'path = {json.dumps(str(self.tree))}\n' if mode == "mirror" else "")
        self.write("hyperbox.toml", f"[app]\ncommand = {json.dumps(run)}\nport = {self.port}\n"
                                    f'health = "/"\n{extra}\n{target}')

    def write(self, path: str, text: str | bytes) -> None:
        """Write in place, as most editors do."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode() if isinstance(text, str) else text)

    def replace(self, path: str, text: str) -> None:
        """Write beside it and move over it, as the others do."""
        beside = self.root / f"{path}.new~"
        beside.write_text(text)
        beside.rename(self.root / path)

    def version(self, word: str) -> None:
        """Edit the version that the base app answers with."""
        self.write("ver.py", f'V = "{word}"\n')

    def git(self, *args: str) -> str:
        """Run git in the project."""
        env = getattr(self, "env", dict(os.environ))
        return subprocess.run(["git", *args], cwd=self.root, env=env, check=True, text=True,
                              capture_output=True, timeout=PATIENCE).stdout

    def hb(self, *args: str, timeout: float = VERB_SECONDS,
           stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a verb in the project; gives status and output."""
        return subprocess.run([*HYPERBOX, *args], cwd=self.root, env=self.env, text=True,
                              capture_output=True, timeout=timeout, input=stdin,
                              errors="surrogateescape")

    def json(self, *args: str, timeout: float = VERB_SECONDS) -> Any:
        """Run a verb with ``--json``; gives its one object."""
        done = self.hb(*args, "--json", timeout=timeout)
        assert done.stdout.strip(), (done.returncode, done.stderr)
        return json.loads(done.stdout)

    def target(self) -> dict[str, Any]:
        """The target as ``status --json`` shows it."""
        projects = self.json("status")["projects"]
        assert projects, "nothing is up"
        target: dict[str, Any] = projects[0]["targets"][0]
        return target

    def generations(self) -> list[dict[str, Any]]:
        """The history, newest first."""
        rows: list[dict[str, Any]] = self.json("history")["generations"]
        return rows

    def ask(self, timeout: float = 20.0) -> str:
        """The answer of the program now."""
        return ask(self.port, timeout=timeout)

    @contextmanager
    def up(self, *args: str, live: bool = True) -> Iterator[Up]:
        """``hyperbox up --json`` until the block ends; then ``down``, and nothing may be left."""
        running = Up(self, args)
        try:
            if live:
                running.wait_state("live")
            yield running
        finally:
            running.end()


@functools.cache
def landed_agent() -> Path:
    """A folder as the first start on a mirrored target makes it: the agent, put there and unpacked.

    Once a run: compiling all of the agent costs as much as the rest of such a start together.
    """
    folder = Path(tempfile.mkdtemp(prefix="hbt-agent-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    archive = build_archive()
    packed = folder / archive.name
    packed.write_bytes(archive.data)
    packed.chmod(0o600)
    bootstrap.unpack(str(packed), bootstrap.folder_of(str(packed)))
    return folder


class Up:
    """A running ``hyperbox up --json``, with all events that it printed."""

    def __init__(self, project: Project, args: Sequence[str] = ()) -> None:
        self.project = project
        self.events: list[dict[str, Any]] = []
        self._more = threading.Condition()
        self.process = subprocess.Popen(
            [*HYPERBOX, "up", "--json", *args], cwd=project.root, env=project.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="surrogateescape")
        self.stderr: list[str] = []
        self._readers = [threading.Thread(target=self._read, daemon=True),
                         threading.Thread(target=self._read_errors, daemon=True)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.events.append(json.loads(line))
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.stderr.extend(self.process.stderr)

    def wait(self, wanted: Callable[[dict[str, Any]], bool], timeout: float = PATIENCE, *,
             after: int = 0) -> dict[str, Any]:
        """The first event from index ``after`` on that is ``wanted``."""
        deadline = time.monotonic() + timeout
        seen = after
        with self._more:
            while True:
                for event in self.events[seen:]:
                    if wanted(event):
                        return event
                seen = len(self.events)
                left = deadline - time.monotonic()
                over = self.process.poll() is not None and not self._readers[0].is_alive()
                if left <= 0 or over:
                    raise AssertionError(
                        f"it did not come: {self.events[-12:]} {self.stderr[-12:]}")
                self._more.wait(min(left, 0.2))

    def wait_state(self, state: str, *, after: int = 0) -> dict[str, Any]:
        """The next event that says that ``state`` holds."""
        return self.wait(lambda e: e.get("event") == "state" and e["state"] == state, after=after)

    def wait_generation(self, verdict: str | None = "committed", *, after: int = 0,
                        **fields: Any) -> dict[str, Any]:
        """The next generation with this verdict (and these fields); not the first start's."""
        wanted = {"first": None, **fields}

        def fits(event: dict[str, Any]) -> bool:
            return (event.get("event") == "generation" and verdict in (None, event["verdict"])
                    and all(event.get(key) == value for key, value in wanted.items()))

        return self.wait(fits, after=after)

    def generations(self) -> list[dict[str, Any]]:
        """All decided so far, oldest first."""
        return [event for event in self.events if event["event"] == "generation"]

    def mark(self) -> int:
        """The place after the newest event: what comes now is behind it."""
        return len(self.events)

    def logs(self) -> list[str]:
        """Lines of the program so far."""
        return [event["text"] for event in self.events if event["event"] == "log"]

    def end(self) -> None:
        """Bring it down and see that nothing is left."""
        down = self.project.hb("down")
        if self.process.poll() is None:
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait(30)
        for reader in self._readers:
            reader.join(30)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        assert down.returncode == 0, down.stderr
        left = leftovers(self.project)
        assert not left, left


def belonging(project: Project) -> list[str]:
    """Processes that belong to this project's run, by the state folder in their environment or
    command line."""
    mark = project.env["XDG_STATE_HOME"]
    return [f"{pid} {line}" for pid, line, env in processes(mark)
            if pid != os.getpid() and (mark in line or f"XDG_STATE_HOME={mark}" in env)]


def leftovers(project: Project) -> list[str]:
    """What of a project's run has not ended, given its time."""
    deadline = time.monotonic() + 15.0
    while (found := belonging(project)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def processes(mark: str = "") -> Iterator[tuple[int, str, str]]:
    """pid, command line and environment of every process that we may look at, and that has
    ``mark`` in one of them."""
    wanted = os.fsencode(mark)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            env, line = _proc_file(name, "environ"), _proc_file(name, "cmdline")
            # Tests poll with this: what is not asked for is not looked at any closer.
            if wanted in env or wanted in line:
                stat = _proc_file(name, "stat")
                if stat.rpartition(b")")[2].split()[0] != b"Z":
                    yield int(name), _words(line, b" "), _words(env, b"\n")
        except OSError:
            continue


def _proc_file(pid: str, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.read()


def _words(data: bytes, between: bytes) -> str:
    return data.replace(b"\0", between).decode(errors="replace")


def ask(port: int, path: str = "/", timeout: float = 20.0) -> str:
    """One GET on a new connection; the body of a complete 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, (answer.status, body)
        return body
    finally:
        connection.close()


def eventually(check: Callable[[], bool], timeout: float = PATIENCE, message: str = "") -> None:
    """Return as soon as ``check`` holds."""
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, message or "it never came to hold"
        time.sleep(0.01)


class Steady:
    """A client that asks all the time, on new and on kept connections by turns.

    ``failures`` holds everything that is not a complete 200; ``answers`` counts the bodies.
    """

    def __init__(self, port: int, every: float = 0.02, path: str = "/") -> None:
        self.port = port
        self.path = path
        self.every = every
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self.longest = 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(keep,), daemon=True)
                         for keep in (False, True)]

    def __enter__(self) -> Steady:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(STEADY_SECONDS + 5)

    def _run(self, keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STEADY_SECONDS)
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                connection.request("GET", self.path)
                answer = connection.getresponse()
                body = answer.read().decode()
                if answer.status == 200:
                    self.answers[body] += 1
                else:
                    self.failures.append(f"{answer.status} {body[:80]}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error} keep={keep}")
                connection.close()
            self.longest = max(self.longest, time.monotonic() - began)
            if not keep:
                connection.close()
            self._stop.wait(self.every)
        connection.close()


def tree_of(root: Path, *, skip: Sequence[str] = (".git",)) -> dict[str, tuple[str, bool, bytes]]:
    """Path → (kind, executable, content or link text) of a folder, for comparing two ends."""
    out: dict[str, tuple[str, bool, bytes]] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in skip and name != "__pycache__"]
        for name in [*folders, *names]:
            path = Path(folder, name)
            key = str(path.relative_to(root))
            if path.is_symlink():
                out[key] = ("link", False, os.readlink(path).encode())
            elif path.is_dir():
                out[key] = ("dir", False, b"")
            else:
                out[key] = ("file", bool(path.stat().st_mode & 0o100), path.read_bytes())
    return out


def same_trees(left: Path, right: Path) -> bool:
    """Whether two folders hold the same."""
    return tree_of(left) == tree_of(right)


def environment(**more: str) -> Mapping[str, str]:
    """This process's environment with additions."""
    return {**os.environ, **more}
