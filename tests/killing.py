"""What the kill walk needs: our processes by their part, a program that shows mixed trees, and a
reader of the mirrored tree.

A save changes three files, adds one to a folder and removes another there, so that a tree that is
neither all old nor all new can't hide.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from journey import Project, Steady, Up, eventually, processes

MODES = ("in-place", "mirror")
PHASES = ("idle", "settle", "stage", "gate", "apply", "reload", "health", "live")
"""What a save passes through; before, and after the switch, while the old version drains."""
FILES = ("a.py", "b.py", "c.py")
FOLDER = "only"
"""Holds one file, named as the save."""

APP = '''\
import http.server, os, time
import a, b, c
V = a.V if a.V == b.V == c.V else "mixed"
print("loading", V, flush=True)
time.sleep(0.05)
first = True
def tree():
    return {open(name).read()[5:-2] for name in ("a.py", "b.py", "c.py")} | set(os.listdir("only"))
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        global first
        if first:
            first = False
            print("asked", V, flush=True)
            time.sleep(0.05)
        body = V if len(tree()) == 1 else V + " in a mixed tree"
        if self.path == "/slow":
            print("begun", flush=True)
            time.sleep(1.0)
        print("answered", flush=True)
        self.send_response(200); self.send_header("Content-Length", str(len(body)))
        self.end_headers(); self.wfile.write(body.encode())
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
'''
"""Reads its files at each request, and writes a line for each: who lets go of its output kills it.
Says when it begins, and when it is asked for the first time."""

MIXED = re.compile("mixed")


def make_project(folder: Path, mode: str) -> Project:
    """A project with the program above, at ``v1``."""
    project = Project(folder, mode=mode)
    # A folder of its own: what is left in there is this run's. Its path has to be short.
    project.env["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="hbk-")
    save(project, "v1")
    project.write("app.py", APP)
    (project.root / "ver.py").unlink()
    return project


def save(project: Project, word: str) -> None:
    """Save all as one, as a checkout does: whoever watches waits for git's lock."""
    lock = project.root / ".git" / "index.lock"
    lock.touch()
    for name in FILES:
        project.replace(name, f'V = "{word}"\n')
    project.write(f"{FOLDER}/{word}", "")
    for old in (project.root / FOLDER).iterdir():
        if old.name != word:
            old.unlink()
    lock.unlink()


def pids(project: Project) -> dict[str, int]:
    """Our processes that run now, by their part; of several of a kind the youngest."""
    return {part: pid for pid, part in _parts(project)}


def _parts(project: Project) -> list[tuple[int, str]]:
    """Each process of ours and its part, the youngest last."""
    mark = f"XDG_STATE_HOME={project.env['XDG_STATE_HOME']}"
    ours = [one for one in processes(mark) if mark in one[2]]
    return [(pid, next((part for part, words in KNOWN.items() if words in line), None)
             or _part_of(pid, line, env))
            for pid, line, env in sorted(ours, key=lambda one: _started(one[0]))]


KNOWN = {"session": " up --json", "shell": "sh -c", "agent": " serve --home ",
         "holder": "run_from_arguments", "mender": "import mend"}


def _part_of(pid: int, line: str, env: str) -> str:
    """What was forked from the worker bears its name and its environment: so the program is what
    listens, the worker has its socket to us, and a spare has no socket at all."""
    sockets = _sockets(pid)
    if sockets.keys() & _listening():
        return "program"
    if not line.rstrip().endswith("/worker.py"):
        return "other"
    if {f"HYPERBOX_WORKER_FD={fd}" for fd in sockets.values()} & set(env.splitlines()):
        return "worker"
    return "other" if sockets else "spare"


def _sockets(pid: int) -> dict[str, str]:
    """Inode → descriptor of a process's sockets."""
    found = {}
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found[os.readlink(f"/proc/{pid}/fd/{fd}")] = fd
    return {name[8:-1]: fd for name, fd in found.items() if name.startswith("socket:[")}


def _listening() -> set[str]:
    """Inodes of the TCP sockets that listen (``0A``), of proc_net_tcp.txt."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return {row.split()[9] for row in rows if row.split()[3] == "0A"}


def _started(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def kill(*targets: int) -> None:
    """SIGKILL those that are still there."""
    for pid in targets:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def at_phase(up: Up, phase: str, mark: int, word: str) -> None:
    """Return in the moment that the generation with ``word`` is in this phase."""
    def there(event: dict[str, object]) -> bool:
        kind = event["event"]
        if phase == "settle":
            return kind == "began"
        if phase in ("reload", "health"):
            said = {"reload": "loading", "health": "asked"}[phase]
            return kind == "log" and event["text"] == f"{said} {word}"
        if phase == "live":
            return kind == "state" and event["state"] == "live"
        return kind == "phase" and event["phase"] == phase
    up.wait(there, after=mark)


@contextmanager
def running(project: Project) -> Iterator[Up]:
    """``up`` with all of our processes there; afterwards nothing is left at all."""
    with project.up() as up:
        await_all(project)
        yield up
    assert not residue(project), residue(project)
    with pytest.raises(OSError, match="refused"):
        project.ask(timeout=2)
    shutil.rmtree(project.env["XDG_RUNTIME_DIR"])


def await_all(project: Project, timeout: float = 90.0) -> None:
    """Wait until each part of ours runs, a child forked ahead among them, and nothing else."""
    wanted, there = ["agent", "holder", "program", "spare", "worker"], list[str]()

    def all_there() -> bool:
        there[:] = sorted(part for _, part in _parts(project))
        return there in (wanted, sorted([*wanted, "session"]))

    try:
        eventually(all_there, timeout)
    except AssertionError as error:
        raise AssertionError(f"there are {there}: {project.json('status')}") from error


class Walk:
    """Saves one after the other, each with a kill in it."""

    def __init__(self, project: Project, up: Up) -> None:
        self.project = project
        self.up = up
        self.number = 1

    def next_word(self) -> str:
        """What the next save says."""
        self.number += 1
        return f"v{self.number}"

    def strike(self, parts: Sequence[str], phase: str) -> None:
        """Kill them in this phase; what was saved last must go live by itself."""
        ours, mark = pids(self.project), self.up.mark()
        word = self.save_until(phase)
        kill(*(ours[part] for part in parts))
        if "spare" in parts and phase != "idle" and self._was_the_program(mark):
            word = ""
        if word:
            converged(self.project, word)
        if phase == "idle" and not {"program", "spare"} & set(parts):
            await_all(self.project)
            assert pids(self.project)["program"] == ours["program"], "it was started again"
        if phase == "idle" or not word:
            word = self.next_word()
            save(self.project, word)
            converged(self.project, word)

    def _was_the_program(self, mark: int) -> bool:
        """Whether the spare had become the new version when it was killed, so that this failed."""
        error = self.up.wait_generation(verdict=None, after=mark)["error"]
        assert error is None or "SIGKILL" in error["message"], error
        return error is not None

    def save_until(self, phase: str) -> str:
        """Save, and return when the save is in ``phase``; gives what the newest save says."""
        if phase == "idle":
            return f"v{self.number}"
        word, mark = self.next_word(), self.up.mark()
        save(self.project, word)
        at_phase(self.up, phase, mark, word)
        return word


class Reader(threading.Thread):
    """Somebody else who reads the mirrored tree all the time."""

    def __init__(self, tree: Path) -> None:
        super().__init__(daemon=True)
        self._tree = tree
        self._over = threading.Event()
        self.looks: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self) -> None:
        while not self._over.wait(0.001):
            seen = self.look()
            self.looks["mixed" if len(seen) > 1 else "whole"] += 1

    def look(self) -> set[str]:
        """The contents of the files now; each is whole."""
        seen = set()
        for name in FILES:
            try:
                text = (self._tree / name).read_text()
            except OSError as error:
                self.faults.append(f"{name}: {error}")
                continue
            if not re.fullmatch(r'V = "v\d+"\n', text):
                self.faults.append(f"{name}: {text!r}")
            seen.add(text)
        return seen

    def stop(self) -> None:
        self._over.set()
        self.join(5)


@contextmanager
def reading(project: Project) -> Iterator[Reader | None]:
    """A reader of a mirrored tree, which must never see a file that is not whole."""
    if project.mode != "mirror":
        yield None
        return
    reader = Reader(project.tree)
    reader.start()
    try:
        yield reader
    finally:
        reader.stop()
    assert not reader.faults, reader.faults[:5]
    assert reader.looks["mixed"] <= reader.looks["whole"], reader.looks


def is_whole(project: Project) -> bool:
    """Whether the mirrored tree is all of one generation."""
    said = {(project.tree / name).read_text()[5:-2] for name in FILES}
    return len(said.union(os.listdir(project.tree / FOLDER))) == 1


LONGEST = 20.0
"""Seconds; a program that crashes again and again pauses for up to 4 of them in a walk."""
CUT = re.compile("RemoteDisconnected|ConnectionReset|IncompleteRead|BrokenPipe|BadStatusLine|"
                 "502 .* closed the connection")


def check_answers(steady: Steady, project: Project, *, cuts: int = 0) -> None:
    """None failed, but what was in flight (or kept) at ``cuts`` deaths of what it went through; and
    none waited for longer than the longest of its restarts."""
    cut = [one for one in steady.failures if CUT.search(one)]
    assert len(cut) == len(steady.failures), steady.failures
    assert len(cut) <= 2 * cuts, steady.failures
    assert steady.longest < LONGEST, steady.longest
    assert not [word for word in steady.answers if word.startswith("mixed")], steady.answers
    if project.mode == "mirror":
        assert not [word for word in steady.answers if MIXED.search(word)], steady.answers


def residue(project: Project) -> list[str]:
    """What of the run lies in its folders: sockets, locks, half-made files. What makes the next
    start quick stays: the store, compiled code, what was learned, the agent's own archive."""
    base = Path(project.env["XDG_STATE_HOME"]).parent
    found = []
    for folder, folders, names in os.walk(base):
        folders[:] = [name for name in folders if Path(folder, name) != project.root]
        for name in names:
            path = Path(folder, name)
            if stat.S_ISSOCK(path.lstat().st_mode) or name.endswith((".new", ".tmp")) or name in (
                    "peers", "instances.json", "journal"):
                found.append(str(path))
        if Path(folder).name in ("stage", "trash", "tmp", "run") and (folders or names):
            found.append(f"{folder}: {folders + names}")
    # Of the runtime folder, a folder of ours for all projects may stay.
    mine = Path(project.env["XDG_RUNTIME_DIR"])
    return found + [str(path) for path in mine.rglob("*") if path.parent != mine]


def down(project: Project) -> None:
    """Bring it down from outside; nothing may be left."""
    done = project.hb("down", timeout=60)
    assert done.returncode == 0, done.stderr


def is_live(project: Project, word: str) -> bool:
    """Whether ``word`` answers, in whatever state the tree is seen."""
    try:
        return project.ask().split()[0] == word
    except (OSError, AssertionError):
        return False


def converged(project: Project, word: str, timeout: float = 45.0) -> None:
    """Wait until ``word`` is live, and mirrored; no newer generation may follow it for want."""
    eventually(lambda: is_live(project, word), timeout, f"{word} never went live")
    if project.mode == "mirror":
        eventually(lambda: is_whole(project), timeout, "the tree stayed mixed")


def is_stopped(pid: int) -> bool:
    """Whether this process stands still."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"T"
    except OSError:
        return False


def await_frozen(pid: int, timeout: float = 30.0) -> bool:
    """Return in the moment in which this process is stopped; False: it never was."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if is_stopped(pid):
            return True
    return False
