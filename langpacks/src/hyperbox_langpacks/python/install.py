"""What brings the environment in line with a changed lock or requirements file."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbox_langpacks.base import Command, FileChange, InstallPlan, ProjectView
from hyperbox_langpacks.python.environment import (
    conda_file,
    find_manager,
    is_requirements,
    read_pyproject,
    requirements_files,
)
from hyperbox_langpacks.python.rungs import LOCKS
from hyperbox_langpacks.python.toml import get

BESIDE = ".venv-next"


def plan_install(view: ProjectView, interpreter: str | None,
                 changes: Sequence[FileChange]) -> InstallPlan | None:
    """The commands, or None where none of the changes says what is installed."""
    named = [change.path for change in changes
             if change.path in LOCKS or change.path == "pyproject.toml"
             or is_requirements(change.path)]
    if not named:
        return None
    manager = find_manager(view)
    steps = _STEPS.get(manager or "", _pip)(view, interpreter or "python3", named)
    if not steps:
        return None
    return InstallPlan(tuple(Command(step) for step in steps),
                       f"{', '.join(named)} changed; {manager or 'pip'} brings the environment "
                       "in line")


Steps = list[tuple[str, ...]]


def _uv(view: ProjectView, interpreter: str, changed: list[str]) -> Steps:
    """A changed lock is carried out as it is; changed wishes are locked first."""
    return [("uv", "sync", "--frozen") if "uv.lock" in changed else ("uv", "sync")]


def _poetry(view: ProjectView, interpreter: str, changed: list[str]) -> Steps:
    return [("poetry", "install", "--no-interaction", "--sync")]


def _pipenv(view: ProjectView, interpreter: str, changed: list[str]) -> Steps:
    return [("pipenv", "sync" if "Pipfile.lock" in changed else "install")]


def _conda(view: ProjectView, interpreter: str, changed: list[str]) -> Steps:
    file = conda_file(view) or "environment.yml"
    return [("conda", "env", "update", "--file", file, "--prune")]


def _pip(view: ProjectView, interpreter: str, changed: list[str]) -> Steps:
    """The plainest requirements file and what changed beside it, in one go: pip sees conflicts."""
    pip = (interpreter, "-m", "pip", "install", "--disable-pip-version-check")
    files = [name for name in requirements_files(view) if name.endswith(".txt")
             and not name.rpartition("/")[2].startswith("constraints")]
    wanted = [name for place, name in enumerate(files) if place == 0 or name in changed]
    flags = [part for name in wanted for part in ("--requirement", name)]
    steps: Steps = [(*pip, *flags)] if flags else []
    if get(read_pyproject(view), "project", "dependencies") or view.exists("setup.py"):
        steps.append((*pip, "--editable", "."))
    return steps


_STEPS = {"uv": _uv, "poetry": _poetry, "pipenv": _pipenv, "conda": _conda, "pip": _pip}
