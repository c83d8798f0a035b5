"""What the kill walk needs: our processes by their part, a program that shows mixed trees, and a
reader of the mirrored tree."""

from __future__ import annotations

import os
import re
import signal
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from journey import Project, Steady, Up, eventually, processes

PARTS = ("session", "agent", "holder", "worker", "spare")
PHASES = ("idle", "settle", "stage", "gate", "apply", "reload", "health")
FILES = ("a.py", "b.py", "c.py")

APP = '''\
import http.server, os, time
import a, b, c
V = a.V if a.V == b.V == c.V else "mixed"
print("loading", V, flush=True)
time.sleep(0.05)
first = True
def tree():
    return {open(name).read() for name in ("a.py", "b.py", "c.py")}
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        global first
        if first:
            first = False
            print("asked", V, flush=True)
            time.sleep(0.05)
        body = V if len(tree()) == 1 else V + " in a mixed tree"
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
    save(project, "v1")
    project.write("app.py", APP)
    (project.root / "ver.py").unlink()
    return project


def save(project: Project, word: str) -> None:
    """Save all three files as one, as a checkout does: whoever watches waits for git's lock."""
    lock = project.root / ".git" / "index.lock"
    lock.touch()
    for name in FILES:
        project.replace(name, f'V = "{word}"\n')
    lock.unlink()


def pids(project: Project) -> dict[str, int]:
    """Our processes that run now, by their part."""
    mark = f"XDG_STATE_HOME={project.env['XDG_STATE_HOME']}"
    found: dict[str, int] = {}
    workers: list[int] = []
    for pid, line, env in processes():
        if mark not in env:
            continue
        if " up --json" in line:
            found["session"] = pid
        elif " serve --home " in line and "sh -c" not in line:
            found["agent"] = pid
        elif "run_from_arguments" in line:
            found["holder"] = pid
        elif line.rstrip().endswith("/worker.py"):
            workers.append(pid)
    # The spare was forked by the worker.
    found.update(zip(("worker", "spare"), sorted(workers, key=_started), strict=False))
    return found


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
        return kind == "phase" and event["phase"] == phase
    up.wait(there, after=mark)


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
    return len({(project.tree / name).read_text() for name in FILES}) == 1


CUT = re.compile("RemoteDisconnected|ConnectionReset|IncompleteRead|BrokenPipe|BadStatusLine")


def check_answers(steady: Steady, project: Project, *, holders: int = 0) -> None:
    """None failed, but what was in flight (or kept) at the death of ``holders`` port holders."""
    cut = [one for one in steady.failures if CUT.search(one)]
    assert len(cut) == len(steady.failures), steady.failures
    assert len(cut) <= 2 * holders, steady.failures
    assert not [word for word in steady.answers if word.startswith("mixed")], steady.answers
    if project.mode == "mirror":
        assert not [word for word in steady.answers if MIXED.search(word)], steady.answers


def residue(project: Project) -> list[str]:
    """Sockets and half-made files that lie in the run's folders."""
    base = Path(project.env["XDG_STATE_HOME"]).parent
    found = []
    for folder, folders, names in os.walk(base):
        folders[:] = [name for name in folders if Path(folder, name) != project.root]
        for name in names:
            path = Path(folder, name)
            if stat.S_ISSOCK(path.lstat().st_mode) or name.endswith((".new", ".tmp")) or name in (
                    "peers", "instances.json", "journal"):
                found.append(str(path))
        if Path(folder).name in ("stage", "trash", "tmp") and (folders or names):
            found.append(f"{folder}: {folders + names}")
    return found


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
