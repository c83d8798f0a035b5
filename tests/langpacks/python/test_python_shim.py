"""The shim in real processes of every Python on this machine: nothing of it shows, all is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from packrun import Bench, every_python, get, wait_for
from pythons import all_pythons


def without_shim(made: Bench, *argv: str) -> tuple[int, str]:
    """The same program as it runs without us."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(argv, cwd=made.root, env=env, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


SHOW = """
import sys, json
print(json.dumps([sys.argv, sys.path, __name__, __file__, repr(__spec__), repr(__loader__)[:50],
                  __package__, sorted(globals()), sys.flags.safe_path
                  if hasattr(sys.flags, "safe_path") else None]))
def fail():
    import broken_inside
fail()
"""


@every_python
def test_a_program_looks_as_it_does_without_us(made: Bench, python: str) -> None:
    made.write("sub/show.py", SHOW)
    made.write("sub/broken_inside.py", "import broken_deeper\n")
    made.write("sub/broken_deeper.py", "def f():\n    raise KeyError('x')\nf()\n")
    with_us = made.run(python, "sub/show.py", "a", "b")
    assert with_us == without_shim(made, python, "sub/show.py", "a", "b")
    assert with_us[0] == 1
    # A second time, when the code comes from the store.
    assert made.run(python, "sub/show.py", "a", "b") == with_us
    assert made.control.named("problem") == []


@every_python
def test_a_syntax_error_in_a_module_looks_as_it_does_without_us(made: Bench, python: str) -> None:
    made.write("app.py", "import bad\n")
    made.write("bad.py", "x = 1\ndef f(:\n    pass\n")
    assert made.run(python, "app.py") == without_shim(made, python, "app.py")


@every_python
def test_all_kinds_of_starts_are_seen(made: Bench, python: str) -> None:
    made.write("pkg/__init__.py", "")
    made.write("pkg/__main__.py", "import pkg.part\nprint('main', __name__)\n")
    made.write("pkg/part.py", "")
    assert made.run(python, "-m", "pkg") == (0, "main __main__\n")
    assert made.run(python, "-c", "import pkg.part; print(1)") == (0, "1\n")
    assert {"pkg/__init__.py", "pkg/__main__.py", "pkg/part.py"} <= made.control.files()


def test_the_shim_itself_is_compiled_once(made: Bench) -> None:
    out = made.run(sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)",
                   PYTHONDONTWRITEBYTECODE="1")
    assert out == (0, "True\n")
    assert list(Path(made.shim).rglob("*.pyc"))


def test_the_next_sitecustomize_still_runs(made: Bench) -> None:
    made.write("other/sitecustomize.py", "import sys; sys.stdout.write('theirs\\n')")
    path = os.pathsep.join([made.shim, str(made.root / "other")])
    out = made.run(sys.executable, "-c", "import sitecustomize, sys; print(sitecustomize.__file__);"
                   "print(any('shim-' in one for one in sys.path))", PYTHONPATH=path)
    assert out == (0, f"theirs\n{made.root}/other/sitecustomize.py\nFalse\n")


def test_an_error_in_the_next_sitecustomize_is_told_as_without_us(made: Bench) -> None:
    made.write("other/sitecustomize.py", "import no_such_module_x")
    path = os.pathsep.join([made.shim, str(made.root / "other")])
    status, out = made.run(sys.executable, "-c", "print('on')", PYTHONPATH=path)
    assert (status, "on\n" in out, "no_such_module_x" in out) == (0, True, True)


@every_python
def test_grandchildren_behind_a_shell_have_the_shim(made: Bench, python: str) -> None:
    """B29's wrapper: the shell waits for the server and adds nothing."""
    made.write("app.py", "import subprocess, sys\n"
                         "subprocess.run([sys.executable, '-c', 'import inner; print(inner.X)'])\n")
    made.write("inner.py", "X = 'inner'\n")
    assert made.run("/bin/sh", "-c", f"{python} app.py; true") == (0, "inner\n")
    assert {"app.py", "inner.py"} <= made.control.files()


# ------------------------------------------------------------------------------ what is told


def test_modules_of_libraries_and_files_of_the_tree_are_told_apart(made: Bench) -> None:
    made.write("app.py", "import json.tool, local, missing_one_try\n".replace(
        ", missing_one_try", "") + "try:\n    import local_settings\nexcept ImportError: pass\n")
    made.write("local.py", "open('data.json').read()\n")
    made.write("data.json", "{}")
    assert made.run(sys.executable, "app.py", public=None)[0] == 0
    assert {"app.py", "local.py", "data.json", "local_settings.py",
            "local_settings/__init__.py"} <= made.control.files()
    assert {"json", "json.tool"} <= made.control.modules()
    assert not {"local", "__main__", "sitecustomize"} & made.control.modules()
    assert not [name for name in made.control.modules() if name.startswith("_hyperbox")]


def test_what_the_program_writes_is_told_before_it_is_written(made: Bench) -> None:
    made.write("app.py", """
import os, sqlite3, pathlib
open("state.json", "w").close()
pathlib.Path("logs").mkdir()
os.open("logs/a.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
open("new.tmp", "x").close()
os.replace("new.tmp", "config.ini")
os.remove("state.json")
sqlite3.connect("app.db").close()
open("/dev/null", "w").close()
open(os.path.join(os.environ["OUT"], "elsewhere"), "w").close()
""")
    assert made.run(sys.executable, "app.py", OUT=str(made.code))[0] == 0
    wrote = {path for event in made.control.named("wrote") for path in event["paths"]}
    assert wrote == {"state.json", "logs", "logs/a.log", "new.tmp", "config.ini", "app.db"}


def test_a_file_that_is_not_there_is_told(made: Bench) -> None:
    made.write("app.py", "try:\n    open('.env')\nexcept OSError: print('none')\n")
    assert made.run(sys.executable, "app.py") == (0, "none\n")
    assert [event["path"] for event in made.control.named("missing")] == [".env"]
    assert ".env" in made.control.files()


def test_a_folder_that_is_listed_at_start_is_told(made: Bench) -> None:
    made.write("plugins/one.py", "")
    made.write("app.py", "import glob, os\nfor p in glob.glob('plugins/*.py'): print(p)\n")
    assert made.run(sys.executable, "app.py") == (0, "plugins/one.py\n")
    assert "plugins/" in made.control.files()
    assert "./" not in made.control.files()
    made.write("app.py", "import importlib, colorsys, wave\nprint('app')\n")
    made.run(sys.executable, "app.py")
    assert "./" not in made.control.files()
    made.write("app.py", "import os\nprint('app.py' in os.listdir())\n")
    assert made.run(sys.executable, "app.py") == (0, "True\n")
    assert "./" in made.control.files()


SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/lazy":
            import lazy
        if self.path == "/read":
            open("late.txt").read()
        if self.path == "/library":
            import colorsys
        body = b"ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
open("early.txt").read()
http.server.ThreadingHTTPServer(("127.0.0.1", 8123), Handler).serve_forever()
"""


def test_what_is_loaded_later_is_told_at_once(made: Bench) -> None:
    made.write("app.py", SERVER)
    for name in ("lazy.py", "late.txt", "early.txt"):
        made.write(name, "")
    made.start(sys.executable, "app.py")
    port = made.control.port()
    wait_for(lambda: {"app.py", "early.txt"} <= made.control.files())
    assert not {"lazy.py", "late.txt"} & made.control.files()
    get(port, "/lazy")
    wait_for(lambda: "lazy.py" in made.control.files())
    get(port, "/read")
    wait_for(lambda: "late.txt" in made.control.files())


def test_a_librarys_late_import_is_told_by_the_next_connection(made: Bench) -> None:
    made.write("app.py", SERVER)
    made.write("early.txt", "")
    made.start(sys.executable, "app.py")
    port = made.control.port()
    get(port, "/library")

    def told() -> bool:
        get(port)
        return "colorsys" in made.control.modules()

    wait_for(told)


# ------------------------------------------------------------------------ it never is in the way


def test_without_an_agent_the_program_runs(made: Bench) -> None:
    made.write("app.py", "open('x', 'w').close()\nprint('ran')\n")
    for control in ("/nowhere/at/all", str(made.root), ""):
        assert made.run(sys.executable, "app.py", HYPERBOX_CONTROL=control) == (0, "ran\n")


def test_an_agent_that_does_not_answer_holds_nobody_up(made: Bench) -> None:
    path = made.control.path + "x"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen(0)
        made.write("app.py", "import time\nbegan = time.monotonic()\n"
                             "for n in range(200): open(f'x{n}', 'w').close()\n"
                             "print(time.monotonic() - began < 3)\n")
        assert made.run(sys.executable, "app.py", HYPERBOX_CONTROL=path) == (0, "True\n")


def test_a_program_may_close_every_descriptor(made: Bench) -> None:
    made.write("app.py", "import os, sys\nos.closerange(3, 256)\nimport lazy\n"
                         "fd = os.open('own.txt', os.O_RDWR | os.O_CREAT)\n"
                         "open('b', 'w').close()\nos.write(fd, b'mine')\nprint(fd)\n")
    made.write("lazy.py", "")
    assert made.run(sys.executable, "app.py", public=None) == (0, "3\n")
    assert (made.root / "own.txt").read_bytes() == b"mine"


@pytest.mark.parametrize("damage", ["no code folder", "code is a file", "garbage in code"])
def test_a_damaged_code_folder_costs_only_time(made: Bench, damage: str, tmp_path: Path) -> None:
    made.write("app.py", "import part; print(part.X)\n")
    made.write("part.py", "X = 1\n")
    assert made.run(sys.executable, "app.py") == (0, "1\n")
    code = str(made.code)
    if damage == "no code folder":
        code = str(tmp_path / "nowhere")
    elif damage == "code is a file":
        code = str(made.write("../file", ""))
    else:
        for number, file in enumerate(made.code.glob("*.code")):
            file.write_bytes([b"", b"\0" * 40, file.read_bytes()[:30]][number % 3])
    assert made.run(sys.executable, "app.py", HYPERBOX_CODE=code) == (0, "1\n")


def test_an_old_python_runs_on_without_hooks(made: Bench) -> None:
    old = next((path for version, path in all_pythons().items() if version < (3, 8)), None)
    if old is None:
        pytest.skip("no Python older than 3.8 here")
    assert made.run(old, "-c", "import sys; print(len(sys.path) > 0)") == (0, "True\n")
    assert made.control.events == []


@every_python
def test_output_comes_at_once_and_none_is_lost(made: Bench, python: str) -> None:
    """B36: the first byte at once, the last unfinished line and the traceback at all."""
    made.write("app.py", "import sys, time\nprint('hello')\ntime.sleep(30)\n")
    process = made.start(python, "app.py")
    assert process.stdout is not None
    assert process.stdout.readline() == b"hello\n"
    assert process.poll() is None
    made.write("end.py", "print('no newline', end='')\nraise SystemExit(3)\n")
    assert made.run(python, "end.py") == (3, "no newline")


def test_jinja_looks_at_its_templates_again_whatever_the_framework_says(made: Bench) -> None:
    pytest.importorskip("jinja2")
    made.write("page.html", "one")
    made.write("app.py", """
import os, jinja2
environment = jinja2.Environment(loader=jinja2.FileSystemLoader("."), auto_reload=False)
environment.auto_reload = False  # as Flask does where somebody sets app.debug
print(environment.get_template("page.html").render())
open("page.html", "w").write("two")
os.utime("page.html", (1, 1))
print(environment.get_template("page.html").render())
""")
    assert made.run(sys.executable, "app.py") == (0, "one\ntwo\n")
