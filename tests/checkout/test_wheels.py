"""A wheel of each room builds, installs into an empty environment with pip, and works there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("langpacks", "agent", "devcontainer", "tui")

pytestmark = [pytest.mark.slow, pytest.mark.needs("venv")]


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    """What the command prints; fails with all of its output."""
    done = subprocess.run([str(word) for word in argv], cwd=cwd, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"{argv}:\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """An environment that was empty before our wheels were put in."""

    bin: Path

    def command(self, name: str, *args: str, cwd: Path | None = None) -> str:
        return run(self.bin / name, *args, cwd=cwd)

    def python(self, source: str) -> str:
        return run(self.bin / "python", "-I", "-c", source)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four wheels, built from the checkout."""
    out = tmp_path_factory.mktemp("wheels")
    for room in ROOMS:
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out,
            ROOT / room)
    return out


def environment(folder: Path, wheels: Path, *packages: str, index: bool = True) -> Environment:
    run(sys.executable, "-m", "venv", folder)
    where = ["--find-links", str(wheels), *([] if index else ["--no-index"])]
    run(folder / "bin/python", "-m", "pip", "install", "--quiet", *where, *packages)
    return Environment(folder / "bin")


@pytest.fixture(scope="session")
def workstation(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(tmp_path_factory.mktemp("workstation"), wheels, "hyperbox-tui")


@pytest.fixture(scope="session")
def beside_the_program(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Only the agent, without any index: it needs nothing but the standard library."""
    folder = tmp_path_factory.mktemp("agent")
    return environment(folder, wheels, "hyperbox-agent", index=False)


def test_each_room_builds_one_pure_wheel_with_its_types_and_licence(wheels: Path) -> None:
    for room in ROOMS:
        (wheel,) = wheels.glob(f"hyperbox_{room}-*-py3-none-any.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        assert f"hyperbox_{room}/py.typed" in names
        assert {name.split("/")[0].split("-")[0] for name in names} == {f"hyperbox_{room}"}


def test_the_commands_tell_their_version(workstation: Environment) -> None:
    version = workstation.python("from importlib.metadata import version as v;"
                                 "print(v('hyperbox-tui'), end='')")
    for command in ("hyperbox", "hyperbox-tui", "hyperbox-agent"):
        assert version in workstation.command(command, "--version")


def test_the_agent_works_without_a_workstation(beside_the_program: Environment) -> None:
    assert beside_the_program.command("hyperbox-agent", "--version").strip()
    seen = beside_the_program.python(
        "import importlib.metadata as m, importlib.util as u;"
        "print(*sorted(d.name for d in m.distributions() if d.name.startswith('hyperbox')),"
        " u.find_spec('hyperbox_devcontainer'))")
    assert seen.split() == ["hyperbox-agent", "hyperbox-langpacks", "None"]


def test_every_module_of_every_wheel_imports(workstation: Environment) -> None:
    count = workstation.python("""
import importlib, pkgutil
count = 0
for room in ("langpacks", "agent", "devcontainer", "tui"):
    top = importlib.import_module("hyperbox_" + room)
    for found in pkgutil.walk_packages(top.__path__, top.__name__ + "."):
        # What runs inside the user's interpreter is copied there under another name.
        if not found.name.endswith("__main__") and ".runtime." not in found.name:
            importlib.import_module(found.name)
            count += 1
print(count)
""")
    assert int(count) > 20


def test_the_packs_are_found_by_their_entry_points(workstation: Environment) -> None:
    names = workstation.python(
        "from importlib.metadata import entry_points;"
        "print(*(e.name + ':' + e.load().name for e in entry_points(group='hyperbox.packs')))")
    assert "python:python" in names.split()


def test_the_demo_holds_in_the_empty_environment(workstation: Environment,
                                                 tmp_path: Path) -> None:
    out = workstation.command("hyperbox", "demo", "--json", cwd=tmp_path)
    assert out.strip()
    assert os.listdir(tmp_path) == []
