"""The gate: the first error of each file by its place, and nothing that Python would run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packrun import Bench, WorkerEnd, every_python


def gate(worker: WorkerEnd, **files: str | bytes) -> list[dict[str, Any]]:
    """Gate files given as ``name__py=text``."""
    named = [worker.made.write(name.replace("__", "."), text) for name, text in files.items()]
    answer = worker.ask("gate", files=[{"path": file.name, "read": str(file)} for file in named])
    assert answer["ok"]
    errors: list[dict[str, Any]] = answer["errors"]
    return errors


@every_python
def test_it_greets_and_gates(made: Bench, python: str) -> None:
    worker = WorkerEnd(made, python)
    hello = worker.ask("hello")
    assert hello["ok"]
    assert hello["pid"] == worker.process.pid
    version = subprocess.check_output([python, "-c", ("import platform as p;"
                                       "print(p.python_version())")], text=True)
    assert hello["python"] == version.strip()
    (error,) = gate(worker, a__py="x = 1\n", b__py="def f(:\n    pass\n")
    assert (error["path"], error["line"]) == ("b.py", 1)
    assert "invalid syntax" in error["message"]
    assert gate(worker, b__py="def f():\n    pass\n") == []
    worker.close()


@pytest.mark.parametrize(("source", "line", "words"), [
    (b"x = 1\nif True\n    pass\n", 2, "expected ':'"),
    (b"def f():\nreturn 1\n", 2, "IndentationError: expected an indented block"),
    (b"if 1:\n\tx = 1\n        y = 2\n", 3, "TabError"),
    (b"x = 'open\n", 1, "unterminated string"),
    (b"a\nx = 1\0\n", 2, "null bytes"),
    (b"# coding: no-such-code\nx = 1\n", None, "no-such-code"),
    (b"x = '\xff\xfe'\n", 1, "utf-8"),
    (b"return 1\n", 1, "'return' outside function"),
    (b"x = " + b"(" * 300 + b")" * 300 + b"\n", 1, "too many nested parentheses"),
    (b"x = " + b"-" * 100_000 + b"1\n", None, ""),
    (b"from __future__ import braces\n", 1, "not a chance"),
])
def test_the_first_error_is_named_by_its_place(worker: WorkerEnd, source: bytes, line: int | None,
                                               words: str) -> None:
    (error,) = gate(worker, bad__py=source)
    assert error["path"] == "bad.py"
    assert error["line"] == line or line is None
    assert words in error["message"]
    assert gate(worker, good__py="x = 1\n") == []


@pytest.mark.parametrize("source", [
    b"", b"\xef\xbb\xbfx = 1\n", b"# coding: latin-1\nx = '\xe4'\n", b"x = 1\r\ny = 2\r\n",
    b"x = '\\d'\n", b"assert (1, 'always')\n", b"x = 1 is 1\n", b"print(1)",
    b"from __future__ import annotations\nx: Y\n"])
def test_what_python_runs_passes(worker: WorkerEnd, source: bytes) -> None:
    assert gate(worker, good__py=source) == []


def test_a_doubtful_escape_passes_even_where_warnings_are_errors(made: Bench) -> None:
    worker = WorkerEnd(made, sys.executable, "-W", "error")
    assert gate(worker, a__py=b"x = '\\d'\n") == []


def test_our_own_future_flags_do_not_leak(worker: WorkerEnd) -> None:
    """``compile`` would inherit ``annotations`` from the file that calls it."""
    assert gate(worker, a__py="def f(x: print('seen')): pass\n") == []
    assert worker.made.run(sys.executable, "-c", "import a") == (0, "seen\n")


def test_a_staged_file_is_read_where_it_is_and_named_where_it_will_be(worker: WorkerEnd,
                                                                      tmp_path: Path) -> None:
    staged = tmp_path / "blob"
    staged.write_text("def f():\n    return 1/0\n")
    assert worker.ask("gate", files=[{"path": "pkg/m.py", "read": str(staged)}])["errors"] == []
    worker.made.write("pkg/m.py", staged.read_bytes())
    status, out = worker.made.run(sys.executable, "-c", "import pkg.m; pkg.m.f()")
    assert status == 1
    assert f'{worker.made.root}/pkg/m.py", line 2, in f' in out


def test_a_file_that_went_is_an_error_of_that_file(worker: WorkerEnd) -> None:
    answer = worker.ask("gate", files=[{"path": "gone.py", "read": "/nowhere/gone.py"}])
    assert answer["errors"][0]["message"] == "can't be read: No such file or directory"


def test_data_is_checked_only_where_the_program_reads_it(worker: WorkerEnd) -> None:
    made = worker.made
    assert gate(worker, fixture__json="{broken", tsconfig__json="// comment\n{}") == []
    made.write("app.py", "import json; json.load(open('conf.json'))\n")
    made.write("conf.json", "{}")
    assert made.run(sys.executable, "app.py")[0] == 0
    (error,) = gate(worker, conf__json='{\n  "a": 1,\n}', fixture__json="{broken")
    assert error["path"] == "conf.json"
    # Python 3.13 names the comma, the others what stands behind it.
    assert (error["line"], error["column"]) in {(3, 1), (2, 9)}
    assert gate(worker, conf__json='\ufeff{"a": 1}'.encode()) == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no TOML reader in the library")
def test_the_project_file_is_always_checked(worker: WorkerEnd) -> None:
    (error,) = gate(worker, pyproject__toml="[project]\nname = x\n")
    assert (error["path"], error["line"]) == ("pyproject.toml", 2)


@pytest.fixture(params=["yaml", "ruamel.yaml"])
def reads_yaml(request: pytest.FixtureRequest, worker: WorkerEnd) -> WorkerEnd:
    """A worker whose program has read ``a.yaml`` and ``b.yml`` with this parser."""
    pytest.importorskip(request.param)
    made = worker.made
    made.write("app.py", f"import {request.param}\nfor n in 'a.yaml', 'b.yml': open(n).close()\n")
    made.write("a.yaml", "")
    made.write("b.yml", "")
    assert made.run(sys.executable, "app.py")[0] == 0
    assert gate(worker, a__yaml="a: [1\n") == [], "nothing is known of a parser yet"
    assert worker.ask("prepare", preload=[request.param])["ok"]
    return worker


@pytest.mark.parametrize(("text", "line"), [
    ("a: [1,\nb: 2\n", None), ("x: 1\n---\ny: *nope\n", 3), ("a:\n\t- 1\n", 2),
    ("k: v: w\n", 1), (b"a: \xff\xfe\n", None), ("a: 'open\n", None)])
def test_yaml_that_the_program_reads_is_checked_by_its_own_parser(
        reads_yaml: WorkerEnd, text: str | bytes, line: int | None) -> None:
    (error,) = gate(reads_yaml, b__yml=text, other__yaml=text)
    assert error["path"] == "b.yml"
    assert line in (None, error["line"]), error
    assert error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize("text", [
    "", "# nothing\n", "a: 1\n---\nb: 2\n...\n---\n- c\n",
    "a: !Ref Bucket\nb: !Sub {x: !GetAtt [p, q]}\nc: !!python/name:os.system\n",
    "%TAG !e! tag:example.com,2000:\n---\na: !e!thing 1\n",
    "base: &b {x: 1}\nmore:\n  <<: *b\n  x: 2\nx: 1\nx: 2\n", "? [1, 2]\n: 3\n",
    "{% if x %}\na: 1\n{% endif %}\n", "a: {{ x }}: {{\n", "\ufeffa: \u00e4\n",
    "a: " + "[" * 300 + "]" * 300 + "\n", "a: [1\n" + "#" * (2 << 20)])
def test_yaml_that_is_none_of_ours_or_right_passes(reads_yaml: WorkerEnd, text: str) -> None:
    assert gate(reads_yaml, a__yaml=text.encode()) == []
    assert reads_yaml.ask("hello")["ok"]
