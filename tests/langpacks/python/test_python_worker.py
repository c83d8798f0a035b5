"""The worker prepares and forks; a forked program can't be told from a started one."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packrun import Bench, WorkerEnd, every_python, get, own_python_first, wait_for

from hyperbox_langpacks.python.runtime import forking


def test_what_is_no_request_is_answered(worker: WorkerEnd) -> None:
    assert worker.ask("dance")["error"] == "unknown operation 'dance'"
    assert worker.ask("gate")["ok"] is False
    assert worker.ask("fork")["error"] == "fork takes 4 descriptors, got 0"
    assert worker.ask("hello")["ok"]
    worker.close()


# ------------------------------------------------------------------------------------- prepare


def library(made: Bench, **modules: str) -> dict[str, str]:
    """A folder of library modules outside the tree, as an environment."""
    folder = made.root.parent / "lib" / "site-packages"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([made.shim, str(folder)])}


REFUSED = {
    "a thread": (("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), "
                 "daemon=True).start()\n"), "started 1 thread"),
    "a socket": ("import socket\nS = socket.socket()\n", "a connection or socket"),
    "a pipe": ("import os\nP = os.pipe()\n", "a pipe"),
    "an event loop": ("import select\nE = select.epoll()\n", "eventpoll"),
    "a log file": (("import os, tempfile\nF = open(os.path.join(tempfile.gettempdir(), "
                   "'hb-test-log'), 'a')\n"), "hb-test-log for writing"),
    "a process": ("import subprocess\nP = subprocess.Popen(['sleep', '60'])\n",
                  "started a process"),
    "the tree": ("import settings\n", "imports settings from the project's own tree"),
    "the tree, swallowed": ("try:\n    import settings\nexcept BaseException:\n    pass\n",
                            "imports settings from the project's own tree"),
    "an exit": ("raise SystemExit(3)\n", "ends the interpreter"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="seen by /proc")
@pytest.mark.parametrize("what", REFUSED)
def test_an_import_that_does_not_survive_a_fork_is_refused(made: Bench, what: str) -> None:
    text, reason = REFUSED[what]
    made.write("settings.py", "raise AssertionError('the tree must not be imported')\n")
    env = library(made, bad_one=text, user_one="import bad_one\n", good_one="X = 1\n")
    worker = WorkerEnd(made, sys.executable, **env)
    first = worker.ask("hello")["pid"]
    answer = worker.ask("prepare", preload=["bad_one", "good_one", "no_such_one"])
    assert answer["ok"], answer
    assert answer["imported"] == 1
    (refused,) = answer["refused"]
    assert refused["module"] == "bad_one"
    assert reason in refused["reason"]
    # The same process went on as a new one: what the import had done is gone.
    assert worker.ask("hello")["pid"] == first
    assert len(os.listdir(f"/proc/{first}/task")) == 1
    assert Path(f"/proc/{first}/task/{first}/children").read_text() == ""
    forked = worker.fork("-c", "import sys; print('bad_one' in sys.modules, "
                               "'good_one' in sys.modules)", **env)
    forked.let_go()
    assert forked.output() == "False True\n"


def test_who_imports_a_refused_library_is_refused_with_its_reason(made: Bench) -> None:
    env = library(made, a_user="import bad_one\n", bad_one=REFUSED["a socket"][0])
    worker = WorkerEnd(made, sys.executable, **env)
    answer = worker.ask("prepare", preload=["bad_one", "a_user"])
    assert answer["ok"]
    reasons = {one["module"]: one["reason"] for one in answer["refused"]}
    assert set(reasons) == {"bad_one", "a_user"}
    assert worker.ask("hello")["ok"]


def test_a_project_module_by_a_librarys_name_forbids_the_warm_start(made: Bench) -> None:
    made.write("json.py", "X = 'ours'\n")
    worker = WorkerEnd(made, sys.executable)
    answer = worker.ask("prepare", preload=["http.server"])
    assert not answer["ok"]
    assert "the project's own json stands before the library json" in answer["error"]


def test_a_library_that_fails_is_left_to_the_program(made: Bench) -> None:
    env = library(made, half_one="import os\nraise RuntimeError('no key')\n")
    answer = WorkerEnd(made, sys.executable, **env).ask("prepare", preload=["half_one", "json"])
    assert answer["ok"]
    assert answer["refused"] == []


@every_python
def test_modules_are_imported_in_an_order_that_works_whatever_order_they_come_in(
        made: Bench, python: str) -> None:
    """``_asyncio`` first would leave asyncio with its slow twin, and no current task."""
    worker = WorkerEnd(made, python)
    assert worker.ask("prepare", preload=["_asyncio", "_json", "asyncio", "json"])["ok"]
    code = ("import asyncio, _asyncio\nasync def main():\n"
            "    return asyncio.current_task() is not None and asyncio.Task is _asyncio.Task\n"
            "print(asyncio.run(main()))")
    forked = worker.fork("-c", code)
    forked.let_go()
    assert forked.output() == "True\n"


@pytest.mark.parametrize("frameworks", [
    ("http.server",), pytest.param(("fastapi", "uvicorn"), marks=pytest.mark.needs("fastapi")),
    pytest.param(("flask",), marks=pytest.mark.needs("flask"))])
def test_the_dummy_request_leaves_nothing_behind(made: Bench, frameworks: tuple[str, ...]) -> None:
    for module in frameworks:
        pytest.importorskip(module)
    worker = WorkerEnd(made, sys.executable)
    fds = len(os.listdir(f"/proc/{worker.ask('hello')['pid']}/fd"))
    answer = worker.ask("prepare", preload=[*frameworks, "json"], framework=frameworks[0])
    assert answer["ok"]
    assert answer["refused"] == []
    assert len(os.listdir(f"/proc/{worker.process.pid}/task")) == 1
    assert len(os.listdir(f"/proc/{worker.process.pid}/fd")) <= fds + 2


# --------------------------------------------------------------------------------------- fork

SHOW = """
import sys, os, signal, json
import part
def show():
    print(json.dumps({
        "argv": sys.argv, "path": sys.path, "name": __name__, "file": globals().get("__file__"),
        "spec": repr(__spec__), "package": __package__, "globals": sorted(globals()),
        "orig": getattr(sys, "orig_argv", None), "cwd": os.getcwd(), "env": os.environ.get("GIVEN"),
        "flags": str(sys.flags), "int": str(signal.getsignal(signal.SIGINT)),
        "main": sys.modules["__main__"].__dict__ is globals(), "part": part.__name__,
        "mask": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "out": [sys.stdout.line_buffering, sys.stdout.encoding, sys.stdout.errors,
                sys.stdout.write_through, sys.stderr.line_buffering, sys.stdin.read()],
        "hooks": [sys.excepthook is sys.__excepthook__],
        "ours": sorted(k for k in os.environ if k.startswith("HYPERBOX_WORKER"))}))
show()
"""
STARTS: dict[str, tuple[str, ...]] = {
    "script": ("show.py", "a", "-b"), "script in a folder": ("sub/show.py",),
    "module": ("-m", "pkg", "x"), "module in a package": ("-m", "pkg.show"),
    "command": ("-c", "import show", "y"), "folder": ("pkgdir", "z"),
}


def run_forked(worker: WorkerEnd, *argv: str, **more: str) -> tuple[int, str]:
    """As ``Bench.run``, in a forked child; its exit status comes from a waiting parent."""
    forked = worker.fork(*argv, **more)
    pid = forked.pid
    status = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    forked.let_go()
    out = forked.output()
    if status is not None:
        os.close(status)
    return pid, out


def plain(text: str) -> Any:
    return json.loads(re.sub(r" at 0x[0-9a-f]+", "", text).strip().splitlines()[-1])


@own_python_first
@pytest.mark.parametrize("start", STARTS)
def test_a_forked_program_sees_what_a_started_one_sees(made: Bench, python: str,
                                                       start: str) -> None:
    for path in ("show.py", "sub/show.py", "pkg/__main__.py", "pkg/show.py", "pkgdir/__main__.py"):
        made.write(path, SHOW)
    for path in ("part.py", "sub/part.py", "pkg/__init__.py", "pkgdir/part.py"):
        made.write(path, "")
    status, started = made.run(python, *STARTS[start], GIVEN="yes")
    assert status == 0, started
    worker = WorkerEnd(made, python, GIVEN="yes")
    assert worker.ask("prepare", preload=["http.server"])["ok"]
    _, forked = run_forked(worker, *STARTS[start], GIVEN="yes")
    assert plain(forked) == plain(started)
    worker.close()


ENDS = {
    "returns": "print('x', end='')",
    "exits": "import sys; sys.exit()",
    "exits with a number": "import sys; sys.exit(7)",
    "exits with words": "import sys; sys.exit('words')",
    "raises": "def f():\n    raise KeyError('x')\nf()",
    "raises from within": "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise OSError from e",
    "in a module": "import deep",
    "syntax": "x = 1\ny = = 2\n",
    "os._exit": "import os\nprint('lost?', flush=True)\nos._exit(4)",
    "interrupted": "import signal, os\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass",
    "terminated": "import signal, os\nos.kill(os.getpid(), signal.SIGTERM)\nwhile True: pass",
    "atexit": "import atexit, sys\natexit.register(print, 'last')\nsys.exit(2)",
    "own hook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\n1/0",
    "broken hook": "import sys\nsys.excepthook = lambda *a: 1/0\nraise KeyError",
    "threads": ("import threading, time\n"
                "threading.Thread(target=lambda: (time.sleep(0.1), print('t'))).start()\n1/0"),
    "stdout closed": "import sys\nsys.stdout.close()",
    "broken output": "import os, sys\nos.close(1)\nprint('x')\n",
}


@own_python_first
@pytest.mark.parametrize("end", ENDS)
def test_a_forked_program_ends_as_a_started_one(made: Bench, python: str, end: str) -> None:
    made.write("app.py", ENDS[end])
    made.write("deep.py", "def g():\n    raise ValueError('deep')\ng()\n")
    started = made.run(python, "app.py")
    with subreaper():
        worker = WorkerEnd(made, python)
        forked = worker.fork("app.py")
        forked.let_go()
        out = forked.output()
        _, status = os.waitpid(forked.pid, 0)
        worker.close()
    assert (os.waitstatus_to_exitcode(status), out) == started


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Be the one who waits for the double-forked child, as the agent is."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


PR_SET_CHILD_SUBREAPER = 36


@every_python
def test_a_console_script_of_the_environment_is_run(made: Bench, python: str) -> None:
    body = "import sys\nprint(sys.argv[1:], __name__, sys.path[0])\n"
    for name, head in (("tool", f"#!{python}\n"),
                       ("long", f"#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n")):
        made.write(f"bin/{name}", head + body).chmod(0o755)
        worker = WorkerEnd(made, python)
        forked = worker.fork("x")
        argv = [str(made.root / "bin" / name), "a"]
        forked.let_go(argv=argv)
        assert forked.output() == f"['a'] __main__ {made.root}/bin\n"
        worker.close()


@pytest.mark.parametrize(("argv", "reason"), [
    (["/bin/sh", "-c", "true"], "is no script of this interpreter"),
    (["no-such-program"], "no-such-program is not found"),
    ([sys.executable, "-O", "app.py"], "options differ"),
    ([sys.executable], "from standard input"),
])
def test_what_can_not_be_forked_is_refused_with_the_reason(worker: WorkerEnd, argv: list[str],
                                                           reason: str) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    answer = worker.ask("fork", [null] * 4, argv=argv, cwd=str(worker.made.root))
    os.close(null)
    assert (answer["ok"], reason in answer["error"]) == (False, True), answer


def test_another_environment_is_refused_by_its_variables(worker: WorkerEnd) -> None:
    forked = worker.fork("app.py", DEBUG_LEVEL="3", PORT="1", HYPERBOX_NUMBER="9")
    assert forked.answer["ok"] is False
    assert "DEBUG_LEVEL" in forked.answer["error"]
    assert "PORT" not in forked.answer["error"]


def test_what_python_itself_sets_in_the_c_locale_is_no_difference() -> None:
    before = {"PATH": "/bin", "LC_CTYPE": "C.UTF-8"}
    for wanted in ({"PATH": "/bin"}, {"PATH": "/bin", "LANG": "C"}):
        seen = forking.as_started(wanted, {**wanted, **before})
        assert forking.changed_variables(seen, {**wanted, **before}) == []
    for said in ({"LANG": "de_DE.UTF-8"}, {"LC_ALL": "C"}, {"LC_CTYPE": "de_DE.UTF-8"}):
        seen = forking.as_started(said, {**said, "LC_CTYPE": "C.UTF-8"})
        assert seen == said


def test_a_go_with_another_environment_starts_the_program_cold(worker: WorkerEnd) -> None:
    made = worker.made
    made.write("app.py", "import sys, os; print(os.environ['LATE'], '_hyperbox.worker' in "
                         "sys.modules, len(sys.argv))\n")
    forked = worker.fork("app.py")
    forked.let_go(env={**made.environ(), "LATE": "x"})
    assert forked.output() == "x False 1\n"


def test_a_name_that_came_into_the_tree_starts_the_program_cold(worker: WorkerEnd) -> None:
    made = worker.made
    made.write("app.py", "import colorsys; print(colorsys.X)\n")
    assert worker.ask("prepare", preload=["colorsys"])["ok"]
    forked = worker.fork("app.py")
    made.write("colorsys.py", "X = 'ours'\n")
    forked.let_go()
    assert forked.output() == "ours\n"


def test_a_closed_go_ends_the_child_without_a_word(worker: WorkerEnd) -> None:
    made = worker.made
    made.write("app.py", "print('must not run')\n")
    forked = worker.fork("app.py")
    os.close(forked.go)
    assert forked.output() == ""
    assert made.control.events == []


def test_the_child_leads_a_session_of_its_own(worker: WorkerEnd) -> None:
    forked = worker.fork("-c", "import os; print(os.getsid(0) == os.getpid() == os.getpgid(0))")
    assert os.getsid(forked.pid) == forked.pid
    forked.let_go()
    assert forked.output() == "True\n"


def test_the_child_holds_no_descriptor_of_the_worker(worker: WorkerEnd) -> None:
    forked = worker.fork("-c", "import os; print(sorted(os.listdir('/proc/self/fd'))[:-1])")
    forked.let_go()
    assert forked.output() == "['0', '1', '2']\n"


def test_a_child_outlives_the_worker(worker: WorkerEnd) -> None:
    made = worker.made
    made.write("app.py", "print('alive')\n")
    forked = worker.fork("app.py")
    worker.close()
    forked.let_go()
    assert forked.output() == "alive\n"


def test_each_child_has_randomness_of_its_own(worker: WorkerEnd) -> None:
    assert worker.ask("prepare", preload=["random", "uuid", "tempfile"])["ok"]
    code = "import random, uuid; print(random.random(), uuid.uuid4())"
    seen = set()
    for _ in range(3):
        forked = worker.fork("-c", code)
        forked.let_go()
        seen.update(forked.output().split())
    assert len(seen) == 6


@pytest.mark.parametrize("files", [(), ("app.py", "ver.py", "gone.py")])
def test_source_that_changed_after_the_fork_is_what_runs(worker: WorkerEnd,
                                                         files: tuple[str, ...]) -> None:
    """The child is forked ahead: the edit comes between fork and go."""
    made = worker.made
    made.write("app.py", "import ver; print(ver.V)\n")
    made.write("ver.py", "V = 1\n")
    assert worker.ask("prepare", preload=["json"])["ok"]
    for number in range(3):
        forked = worker.fork("app.py", files=files)
        made.write("ver.py", f"V = {number}\n")
        made.write(f"new{number}.py", "X = 1\n")
        made.write("app.py", f"import ver, new{number}; print(ver.V)\n")
        assert worker.ask("gate", files=[{"path": "ver.py"}, {"path": "app.py"}])["errors"] == []
        forked.let_go()
        assert forked.output() == f"{number}\n"


def test_code_that_is_known_ahead_is_loaded_ahead(worker: WorkerEnd) -> None:
    """The stored code is changed by hand after that: what prints the old word had it already."""
    made = worker.made
    made.write("app.py", "import ver, other; print(ver.V, other.V)\n")
    made.write("ver.py", "V = 'ahead'\n")
    made.write("other.py", "V = 'ahead'  # not told of\n")
    assert worker.ask("prepare", preload=["json"])["ok"]
    assert worker.ask("gate", files=[{"path": "ver.py"}, {"path": "other.py"}])["errors"] == []
    os.mkfifo(made.root / "pipe.py")
    made.write("big.py", "#" * (2 << 20))
    forked = worker.fork("app.py", files=["pipe.py", "big.py", "gone.py", "ver.py"])
    wait_for(lambda: stands_still(forked.pid))
    swap = ("import marshal, sys; c = marshal.dumps(compile(\"V = 'swapped'\", 'x', 'exec'))\n"
            "for p in sys.argv[1:]: d = open(p, 'rb').read(4); open(p, 'wb').write(d + c)")
    stored = map(str, made.code.glob("*.code"))
    assert made.run(worker.python, "-c", swap, *stored, HYPERBOX_ROOT="")[0] == 0
    forked.let_go()
    assert forked.output() == "ahead swapped\n"


def stands_still(pid: int) -> bool:
    """Whether a process has slept, and used no processor, for a moment."""
    def now() -> list[str]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return [fields[0], *fields[11:13]]

    before = now()
    time.sleep(0.3)
    return before == now() and before[0] == "S"


def test_a_forked_program_tells_what_the_parent_had_not(made: Bench) -> None:
    made.write("app.py", "import colorsys, json, part\n")
    made.write("part.py", "")
    worker = WorkerEnd(made, sys.executable)
    assert worker.ask("prepare", preload=["json"])["ok"]
    run_forked(worker, "app.py")
    wait_for(lambda: "part.py" in made.control.files())
    assert {"app.py", "part.py"} <= made.control.files()
    assert "colorsys" in made.control.modules()
    assert "json" not in made.control.modules()


def test_a_forked_server_answers_soon(made: Bench) -> None:
    """A guard against a slow path coming in, not a measurement: that is the bench's."""
    made.write("app.py", """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8123), Handler).serve_forever()
""")
    worker = WorkerEnd(made, sys.executable)
    assert worker.ask("prepare", preload=["http.server"])["ok"]
    best = 60.0
    for _ in range(5):
        forked = worker.fork("app.py")
        at = forked.let_go()
        assert get(made.control.port())[0] == 200
        best = min(best, time.perf_counter() - at)
        forked.kill()
        made.control.events.clear()
    assert best < 1.0
