"""Command lines of Python's own are split as Python splits them."""

from __future__ import annotations

import pytest

from hyperbox_langpacks.python.runtime.argv import (
    looks_like_python,
    read_arguments,
    shebang_interpreter,
)

TABLE = [
    ("app.py -x --y", (), "script", "app.py", ("-x", "--y")),
    ("-u app.py -m x", ("-u",), "script", "app.py", ("-m", "x")),
    ("-m uvicorn app:app --port 1", (), "module", "uvicorn", ("app:app", "--port", "1")),
    ("-muvicorn app:app", (), "module", "uvicorn", ("app:app",)),
    ("-um x -m y", ("-u",), "module", "x", ("-m", "y")),
    ("-c print(1) a", (), "command", "print(1)", ("a",)),
    ("-W error -X dev -O app.py", ("-W", "error", "-X", "dev", "-O"), "script", "app.py", ()),
    ("-Xdev -Werror app.py", ("-Xdev", "-Werror"), "script", "app.py", ()),
    ("-I -E -s app.py", ("-I", "-E", "-s"), "script", "app.py", ()),
    ("-- app.py", (), "script", "app.py", ()),
    ("--check-hash-based-pycs always a.py", ("--check-hash-based-pycs", "always"), "script",
     "a.py", ()),
    ("-", (), "none", "-", ()),
    ("", (), "none", "", ()),
    ("-i", ("-i",), "none", "", ()),
]


@pytest.mark.parametrize(("line", "options", "kind", "target", "arguments"), TABLE)
def test_a_line_is_split(line: str, options: tuple[str, ...], kind: str, target: str,
                         arguments: tuple[str, ...]) -> None:
    found = read_arguments(line.split())
    assert (found.options, found.kind, found.target, found.arguments) == (
        options, kind, target, arguments)


@pytest.mark.parametrize("name", ["python", "python3", "/usr/bin/python3.11", "pypy3",
                                  "python3.13t", "python3.12d"])
def test_an_interpreter_is_known_by_its_name(name: str) -> None:
    assert looks_like_python(name)


@pytest.mark.parametrize("name", ["python-config", "ipython", "uvicorn", "python3-foo", "pythonw3"])
def test_other_programs_are_not_taken_for_one(name: str) -> None:
    assert not looks_like_python(name)


@pytest.mark.parametrize(("head", "interpreter"), [
    (b"#!/v/bin/python3\nimport x", "/v/bin/python3"),
    (b"#!/usr/bin/env python3\n", "/usr/bin/env"),
    (b"#!/bin/sh\n'''exec' \"/a folder/bin/python\" \"$0\" \"$@\"\n' '''\n",
     "/a folder/bin/python"),
    (b"#!/bin/sh\n'''exec' /long/bin/python \"$0\" \"$@\"\n' '''\n", "/long/bin/python"),
    (b"\x7fELF", None), (b"", None),
])
def test_the_first_line_names_the_interpreter(head: bytes, interpreter: str | None) -> None:
    assert shebang_interpreter(head) == interpreter
