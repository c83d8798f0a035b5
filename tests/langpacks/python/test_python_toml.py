"""The fallback reader reads what detection needs, as ``tomllib`` does."""

from __future__ import annotations

import importlib.util

import pytest

from hyperbox_langpacks.python.toml import get, read_tolerantly, read_toml

DOCUMENT = '''
# a comment = 1
title = "A \\"quoted\\" # title"  # after
"quoted key" = 'lit\\eral'
[project]
name = "shop"
dependencies = [
    "flask>=3",  # why
    'gunicorn[gevent]',
]
requires-python = ">=3.10"
[project.scripts]
shop = "shop.cli:main"
[project.optional-dependencies]
dev = ["pytest"]
[tool.uv]
package = false
workspace = { members = ["a", "b"], exclude = [] }
[tool.poetry.dependencies]
python = "^3.11"
flask = { version = "^3", extras = ["async"], optional = true }
[[tool.uv.index]]
name = "one"
url = "https://one.example/simple"
[[tool.uv.index]]
name = "two"
[tool.numbers]
int = 1_000
hex = 0xff
float = -1.5e3
yes = true
text = """
first
second"""
raw = \'\'\'a "b" = [c\'\'\'
a.b.c = 1
'''


@pytest.mark.skipif(importlib.util.find_spec("tomllib") is None, reason="3.11 has a reader")
def test_the_fallback_agrees_with_the_library() -> None:
    import tomllib

    assert read_tolerantly(DOCUMENT) == tomllib.loads(DOCUMENT)


def test_nested_values_are_found_on_any_python() -> None:
    document = read_toml(DOCUMENT)
    assert get(document, "project", "scripts", "shop") == "shop.cli:main"
    assert get(document, "project", "dependencies") == ["flask>=3", "gunicorn[gevent]"]
    assert get(document, "tool", "poetry", "dependencies", "flask", "extras") == ["async"]
    assert get(document, "tool", "uv", "index")[1] == {"name": "two"}
    assert get(document, "project", "nothing", "there") is None


@pytest.mark.parametrize("broken", [
    "[project\nname = 'x'\n[project.scripts]\na = 'b:c'\n",
    "x = [1, 2\n[project.scripts]\na = 'b:c'\n", "= = =\n[project.scripts]\na = 'b:c'\n",
    "x = {a = , }\n[project.scripts]\na = 'b:c'\n", "[a]\n[a.b]\nc\n[[a.b]]\n", "x = '''open\n",
    "\0",
    "a = 1\n[a]\nb = 1\n[[a]]\n",
])
def test_a_broken_document_raises_nothing(broken: str) -> None:
    assert isinstance(read_toml(broken), dict)
