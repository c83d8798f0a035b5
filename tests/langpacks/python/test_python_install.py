"""What brings the environment in line with changed locks and requirements."""

from __future__ import annotations

import pytest

from hyperbox_langpacks.base import Command, Detection, FileChange
from hyperbox_langpacks.python import PACK
from hyperbox_langpacks.view import MemoryView

PY = "/project/.venv/bin/python"
PIP = (PY, "-m", "pip", "install", "--disable-pip-version-check")
FOUND = Detection("python", Command((PY, "app.py")), "", 1.0, interpreter=PY)
PROJECT = "[project]\nname = 'x'\ndependencies = ['flask']\n"

TABLE = {
    "uv": ({"uv.lock": "", "pyproject.toml": PROJECT}, "uv.lock", [("uv", "sync", "--frozen")]),
    "uv, the project file": ({"uv.lock": "", "pyproject.toml": PROJECT}, "pyproject.toml",
                             [("uv", "sync")]),
    "poetry": ({"poetry.lock": ""}, "poetry.lock",
               [("poetry", "install", "--no-interaction", "--sync")]),
    "pipenv": ({"Pipfile": "", "Pipfile.lock": ""}, "Pipfile.lock", [("pipenv", "sync")]),
    "pipenv, the wishes": ({"Pipfile": "", "Pipfile.lock": ""}, "Pipfile",
                           [("pipenv", "install")]),
    "conda": ({"environment.yml": "name: x\n"}, "environment.yml",
              [("conda", "env", "update", "--file", "environment.yml", "--prune")]),
    "pip": ({"requirements.txt": "flask"}, "requirements.txt",
            [(*PIP, "--requirement", "requirements.txt")]),
    "pip, the file that changed": (
        {"requirements.txt": "flask", "requirements/dev.txt": "x"}, "requirements/dev.txt",
        [(*PIP, "--requirement", "requirements.txt", "--requirement", "requirements/dev.txt")]),
    "pip, a project": ({"pyproject.toml": PROJECT}, "pyproject.toml", [(*PIP, "--editable", ".")]),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_plan_is_the_managers_own_command(name: str) -> None:
    files, changed, steps = TABLE[name]
    plan = PACK.install(MemoryView(files), FOUND, [FileChange(changed, "modified")])
    assert plan is not None
    assert [step.argv for step in plan.steps] == steps
    assert changed in plan.why


def test_source_needs_no_install() -> None:
    assert PACK.install(MemoryView({"uv.lock": ""}), FOUND, [FileChange("app.py", "added")]) is None


def test_a_project_without_dependencies_needs_none() -> None:
    view = MemoryView({"pyproject.toml": "[tool.ruff]\nline-length = 100\n"})
    assert PACK.install(view, FOUND, [FileChange("pyproject.toml", "modified")]) is None
