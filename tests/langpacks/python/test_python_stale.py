"""Invariant 11: what the source says now is what runs, whatever a ``.pyc`` beside it says."""

from __future__ import annotations

import compileall
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from packrun import Bench, WorkerEnd, every_python


def edit_unseen(file: Path, text: str) -> None:
    """An edit of the same size that leaves the file's time as it was: no ``.pyc`` can tell."""
    before = file.stat()
    assert len(text) == before.st_size
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def make(made: Bench) -> Path:
    made.write("app.py", "import ver\nprint(ver.V)\n")
    return made.write("ver.py", "V = 'v1'\n")


def test_python_itself_would_run_the_old_code(made: Bench) -> None:
    """The fault that the shim mends; if this fails, Python has mended it."""
    ver = make(made)
    compileall.compile_dir(str(made.root), quiet=2)
    edit_unseen(ver, "V = 'v2'\n")
    assert made.run(sys.executable, "app.py", HYPERBOX_ROOT="", HYPERBOX_CODE="") == (0, "v1\n")


@every_python
def test_a_second_edit_of_the_same_size_and_time_is_seen(made: Bench, python: str) -> None:
    ver = make(made)
    for number in range(1, 5):
        edit_unseen(ver, f"V = 'v{number}'\n")
        assert made.run(python, "app.py") == (0, f"v{number}\n")


def test_an_old_pyc_beside_the_source_is_not_read(made: Bench) -> None:
    ver = make(made)
    compileall.compile_dir(str(made.root), quiet=2)
    edit_unseen(ver, "V = 'v2'\n")
    assert made.run(sys.executable, "app.py") == (0, "v2\n")


def test_no_pyc_is_written_into_the_tree(made: Bench) -> None:
    make(made)
    made.write("pkg/__init__.py", "")
    assert made.run(sys.executable, "-c", "import app, pkg") == (0, "v1\n")
    assert [file for file in made.root.rglob("*") if "__pycache__" in str(file)] == []


def test_libraries_keep_their_pyc(made: Bench) -> None:
    lib = made.write(".venv/lib/python3.11/site-packages/lib_one.py", "X = 1\n")
    made.write("app.py", "import lib_one\nprint(lib_one.X)\n")
    path = os.pathsep.join([made.shim, str(lib.parent)])
    assert made.run(sys.executable, "app.py", PYTHONPATH=path) == (0, "1\n")
    assert Path(importlib.util.cache_from_source(str(lib))).exists()
    assert "lib_one" in made.control.modules()


def test_a_tree_that_is_reached_through_a_link_is_still_ours(made: Bench, tmp_path: Path) -> None:
    ver = make(made)
    link = tmp_path / "link"
    link.symlink_to(made.root)
    path = os.pathsep.join([made.shim, str(link)])
    for number in (1, 2, 3):
        edit_unseen(ver, f"V = 'v{number}'\n")
        out = made.run(sys.executable, "-c", "import ver; print(ver.V)", PYTHONPATH=path)
        assert out == (0, f"v{number}\n")


def test_two_files_with_the_same_text_have_their_own_names_in_tracebacks(made: Bench) -> None:
    made.write("one.py", "def f():\n    raise ValueError\n")
    made.write("two.py", "def f():\n    raise ValueError\n")
    for name in ("one", "two", "one"):
        status, out = made.run(sys.executable, "-c", f"import {name}; {name}.f()")
        assert status == 1
        assert f'{made.root}/{name}.py", line 2, in f' in out


@pytest.mark.parametrize("option", ["", "-O", "-OO"])
def test_optimized_code_is_kept_apart(made: Bench, option: str) -> None:
    made.write("app.py", "import part\n")
    made.write("part.py", "def f():\n    'doc'\nprint(__debug__, f.__doc__)\n")
    expected = {"": "True doc\n", "-O": "False doc\n", "-OO": "False None\n"}
    for one in ("", "-O", "-OO", option):
        argv = (sys.executable, one, "app.py") if one else (sys.executable, "app.py")
        assert made.run(*argv) == (0, expected[one])


@every_python
def test_the_code_that_the_gate_compiled_is_the_one_that_is_loaded(made: Bench,
                                                                   python: str) -> None:
    """The stored code of a digest is changed by hand: what prints it can't have compiled again."""
    ver = make(made)
    worker = WorkerEnd(made, python)
    assert worker.ask("gate", files=[{"path": "ver.py"}])["errors"] == []
    worker.ask("hello")  # it stores after it has answered, and before it hears the next question
    (gated,) = made.code.glob("*.code")
    worker.close()
    swap = ("import marshal, sys; p = sys.argv[1]; d = open(p, 'rb').read();"
            "c = compile(\"V = 'gated'\\n\", 'x', 'exec');"
            "open(p, 'wb').write(d[:4] + marshal.dumps(c))")
    assert made.run(python, "-c", swap, str(gated), HYPERBOX_ROOT="")[0] == 0
    assert made.run(python, "app.py") == (0, "gated\n")
    edit_unseen(ver, "V = 'v2'\n")
    assert made.run(python, "app.py") == (0, "v2\n")
