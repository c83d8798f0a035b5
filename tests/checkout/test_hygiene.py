"""Rules for the files of the checkout that no linter holds."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("langpacks", "agent", "devcontainer", "tui")
STDLIB_ROOMS = ("langpacks", "agent")
FOREIGN_WATCHERS = {"watchfiles", "pyinotify", "pyasyncore", "asyncore"}
"""What the agent uses where it is present, and only below ``watch/``."""


def tracked(*patterns: str) -> list[Path]:
    """The files of the checkout: what git knows, and what it would take."""
    argv = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run([*argv, *patterns], capture_output=True, check=True, text=True).stdout
    return [path for name in sorted(set(listed.split("\0"))) if name
            and (path := ROOT / name).is_file() and not path.is_symlink()]


def python_files() -> list[Path]:
    return tracked("*.py")


@functools.cache
def parsed(path: Path) -> ast.AST:
    return ast.parse(path.read_text("utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n")


# ---------------------------------------------------------------------------------------- sizes


def test_no_python_file_is_longer_than_500_lines() -> None:
    long = {name_of(path): lines_of(path) for path in python_files() if lines_of(path) > 500}
    assert long == {}


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_functions_are_small() -> None:
    sizes = [(node.end_lineno or node.lineno) - node.lineno + 1
             for path in python_files() if path.parts[len(ROOT.parts)] in ROOMS
             for node in functions_of(parsed(path))]
    over_50 = sum(size > 50 for size in sizes)
    assert over_50 <= 0.04 * len(sizes), f"{over_50} of {len(sizes)} functions exceed 50 lines"


# ------------------------------------------------------------------------------------ test files


CHECKERS = re.compile(r"^_?(check|assert|expect|verify|validate|until|equal|wait)|^given$")
"""Calls that fail a test by themselves: helpers that assert or give up at a deadline, and a
property: that nothing unexpected is raised."""


def _called(node: ast.AST) -> set[str]:
    """The names that are called anywhere inside."""
    calls = [inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    return {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
            for func in calls}


def _is_checked_run(node: ast.AST) -> bool:
    """``subprocess.run(…, check=True)``: its program asserts."""
    return isinstance(node, ast.keyword) and node.arg == "check" and (
        isinstance(node.value, ast.Constant) and node.value.value is True)


def _asserts(node: ast.AST) -> bool:
    called = _called(node)
    return (any(isinstance(inner, ast.Assert) or _is_checked_run(inner)
                for inner in ast.walk(node))
            or bool(called & {"raises", "warns", "fail"})
            or any(CHECKERS.match(name) for name in called))


def _idle_tests(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Tests that neither assert anything nor call a function of their file that does."""
    functions = list(functions_of(tree))
    checking = {node.name for node in functions if _asserts(node)}
    while more := {node.name for node in functions if _called(node) & checking} - checking:
        checking |= more
    yield from (node for node in functions
                if node.name.startswith("test_") and node.name not in checking)


def test_every_test_checks_something() -> None:
    idle = [f"{name_of(path)}:{node.lineno} {node.name}"
            for path in python_files() if path.name.startswith("test_")
            for node in _idle_tests(parsed(path))]
    assert idle == []


def test_test_modules_have_names_of_their_own() -> None:
    names = [path.name for path in python_files() if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


# --------------------------------------------------------------------------------------- imports


def _imported_roots(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0], node.lineno


@pytest.mark.parametrize("room", STDLIB_ROOMS)
def test_rooms_that_run_on_targets_import_only_the_standard_library(room: str) -> None:
    own = {f"hyperbox_{name}" for name in STDLIB_ROOMS}
    foreign = []
    for path in python_files():
        if not name_of(path).startswith(f"{room}/src/"):
            continue
        allowed = own | (FOREIGN_WATCHERS if "/watch/" in name_of(path) else set())
        for name, line in _imported_roots(parsed(path)):
            # A pack's shim imports the frameworks of the user's project, where they are.
            in_project = "/python/" in name_of(path)
            if name not in sys.stdlib_module_names | allowed and not in_project:
                foreign.append(f"{name_of(path)}:{line} {name}")
    assert foreign == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_declares_no_more_than_it_may(room: str) -> None:
    declared = tomllib.loads((ROOT / room / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = {
        "langpacks": set(),
        "agent": {"hyperbox-langpacks"},
        "devcontainer": {"hyperbox-agent", "hyperbox-langpacks", "asyncssh", "opentelemetry-sdk",
                         "tomli-w", "tomlkit", "watchfiles"},
        "tui": {"hyperbox-devcontainer", "hyperbox-agent", "hyperbox-langpacks", "textual",
                "libtmux"},
    }[room]
    names = {re.split(r"[<>=!~\[ ;]", text)[0] for text in declared["dependencies"]}
    assert names <= allowed
    floor = (3, 10) if room in STDLIB_ROOMS else (3, 11)
    assert declared["requires-python"] == ">={}.{}".format(*floor)


def test_the_floors_hold(tmp_path: Path) -> None:
    done = subprocess.run(["lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout


IO_MODULES = ("asyncio", "socket", "subprocess", "threading", "multiprocessing", "selectors",
              "ctypes", "shutil", "tempfile", "sqlite3", "signal")


def test_importing_the_core_loads_no_io_module() -> None:
    program = f"""
import importlib, pkgutil, sys
before = set(sys.modules)
import hyperbox_agent.core as core
for found in pkgutil.walk_packages(core.__path__, "hyperbox_agent.core."):
    importlib.import_module(found.name)
print(*sorted(set(sys.modules) - before))
print(*sorted((set(sys.modules) - before) & set({IO_MODULES!r})))
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True,
                          check=True)
    loaded, pulled_in = done.stdout.splitlines()
    assert "hyperbox_agent.core" in loaded.split()
    assert pulled_in == ""


# ------------------------------------------------------------------------------------- all files


def test_no_file_names_a_machine_or_a_person() -> None:
    # Written in pieces, so that this file does not find itself.
    patterns = [r"(?<![\w.])/" + "work/", r"/" + "root/",
                r"files\." + "pythonhosted"]
    allowed = {"uv.lock"}
    found = []
    for path in tracked():
        if name_of(path) in allowed:
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{name_of(path)}: {match.group()}" for pattern in patterns
                  for match in re.finditer(pattern, text)]
    assert found == []


def test_no_file_holds_a_trace_of_unfinished_work() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")
    marks = re.compile(r"\b(" + "|".join(words) + r")\b")
    found = [f"{name_of(path)}:{number}" for path in tracked("*.py", "*.md", "*.toml", "dev")
             for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
             if marks.search(line)]
    assert found == []


LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def _anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ +(.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for page in tracked("*.md"):
        for link in LINK.findall(page.read_text("utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            where, _, anchor = link.partition("#")
            target = (page.parent / where).resolve() if where else page
            if not target.exists() or (anchor and anchor not in _anchors(target)):
                broken.append(f"{name_of(page)}: {link}")
    assert broken == []


def test_the_licence_stands_at_the_root_and_in_each_room() -> None:
    assert "MIT License" in (ROOT / "LICENSE").read_text("utf-8")
    for room in ROOMS:
        project = tomllib.loads((ROOT / room / "pyproject.toml").read_text("utf-8"))["project"]
        assert project["license"] == "MIT"
        assert (ROOT / room / "src" / f"hyperbox_{room}" / "py.typed").exists()
