"""What makes the project's environment, or brings it in line with a changed lock or requirements
file. Only ever in an environment that is the project's own: a Python that others use stays as is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from hyperbox_langpacks.base import (
    Command,
    Detection,
    FileChange,
    InstallPlan,
    PackError,
    ProjectView,
)
from hyperbox_langpacks.python.environment import (
    IN_TREE,
    conda_file,
    find_manager,
    is_requirements,
    read_pyproject,
    requirements_files,
    site_packages,
)
from hyperbox_langpacks.python.rungs import LOCKS
from hyperbox_langpacks.python.toml import get

USUAL = ".venv"
"""Where an environment is made that nothing names."""
_NOBODYS = {"VIRTUAL_ENV": "", "CONDA_PREFIX": ""}
"""A manager must not take the environment that happens to be active for the one to be made."""
_GET = {"uv": "https://docs.astral.sh/uv/getting-started/installation",
        "poetry": "https://python-poetry.org/docs/#installation",
        "pipenv": "python3 -m pip install --user pipenv",
        "conda": "https://conda-forge.org/download"}


def plan_install(view: ProjectView, found: Detection,
                 changes: Sequence[FileChange]) -> InstallPlan | None:
    """The commands, or None where none of the changes says what is installed.

    Raises PackError where the project has no environment of its own.
    """
    named = [change.path for change in changes
             if change.path in LOCKS or change.path == "pyproject.toml"
             or is_requirements(change.path)]
    manager = find_manager(view) or "pip"
    if not named or (manager == "pip" and not _pip_wishes(view, named)):
        return None
    if found.environment is None:
        raise _not_ours(view, found, manager, named)
    steps = _STEPS[manager](view, found.environment, found.interpreter or "", named)
    # Only what venv makes runs from wherever it stands.
    movable = view.exists(os.path.join(found.environment, "pyvenv.cfg"))
    return InstallPlan(tuple(steps), f"{', '.join(named)} changed; {manager} brings the "
                       "environment in line", found.environment if movable else None)


def _not_ours(view: ProjectView, found: Detection, manager: str, named: list[str]) -> PackError:
    hint = _by_hand(view, manager)
    if found.pinned:
        hint += ", and let [app] command name no interpreter by its path"
    return PackError(f"{', '.join(named)} changed, but nothing was installed: the program runs on "
                     f"{found.interpreter}, which is not this project's own", file=named[0],
                     hint=hint)


def _by_hand(view: ProjectView, manager: str) -> str:
    """The one command that makes the environment."""
    wishes = " ".join(_pip_wishes(view, []))
    return {"uv": "uv sync", "poetry": "poetry install", "pipenv": "pipenv install",
            "conda": f"conda env create --file {conda_file(view)}"}.get(
                manager, f"python3 -m venv {USUAL} && {USUAL}/bin/pip install {wishes}")


# ------------------------------------------------------------------------------ making it


def plan_making(view: ProjectView, environ: Mapping[str, str],
                found: Detection) -> InstallPlan | None:
    """See ``Pack.make``."""
    manager = find_manager(view)
    if manager is None or found.environment is not None or found.pinned or (
            manager == "pip" and not _pip_wishes(view, [])):
        return None
    if manager in _GET and not _is_on_path(view, environ, manager):
        raise PackError(f"{_asking(view, manager)} says what is installed, and {manager} is not on "
                        "PATH here", file=_asking(view, manager), hint=_GET[manager])
    environment = os.path.join(view.root, _place(found))
    steps = _MAKE[manager](view, environment, found.interpreter or "python3")
    return InstallPlan(tuple(steps), f"{manager} makes the environment of {_asking(view, manager)}",
                       environment)


def _place(found: Detection) -> str:
    """``.venv``, or where the command looks for it."""
    first = found.command.argv[0] if found.command.argv else ""
    named = first.partition("/")[0]
    return named if "/" in first and named in IN_TREE else USUAL


def _asking(view: ProjectView, manager: str) -> str:
    """The file that says what is installed."""
    names = ("uv.lock", "poetry.lock", "Pipfile.lock", "Pipfile") if manager != "pip" else ()
    found = [name for name in names if view.exists(name)]
    found += [conda_file(view) or ""] if manager == "conda" else []
    found += requirements_files(view) if manager == "pip" else []
    return next(filter(None, found), "pyproject.toml")


def _is_on_path(view: ProjectView, environ: Mapping[str, str], program: str) -> bool:
    return any(folder.startswith("/") and view.exists(os.path.join(folder, program))
               for folder in environ.get("PATH", "").split(os.pathsep))


Steps = list[Command]


def _make_uv(view: ProjectView, environment: str, interpreter: str) -> Steps:
    return _uv(view, environment, interpreter, ["uv.lock"] if view.exists("uv.lock") else [])


def _make_poetry(view: ProjectView, environment: str, interpreter: str) -> Steps:
    return [Command(("poetry", "install", "--no-interaction", "--sync"),
                    {**_NOBODYS, "POETRY_VIRTUALENVS_IN_PROJECT": "true",
                     "POETRY_VIRTUALENVS_CREATE": "true"})]


def _make_pipenv(view: ProjectView, environment: str, interpreter: str) -> Steps:
    what = "sync" if view.exists("Pipfile.lock") else "install"
    return [Command(("pipenv", what), {**_NOBODYS, "PIPENV_VENV_IN_PROJECT": "1",
                                       "PIPENV_IGNORE_VIRTUALENVS": "1"})]


def _make_conda(view: ProjectView, environment: str, interpreter: str) -> Steps:
    file = conda_file(view) or "environment.yml"
    return [Command(("conda", "env", "create", "--file", file, "--prefix", environment))]


def _make_pip(view: ProjectView, environment: str, interpreter: str) -> Steps:
    own = os.path.join(environment, "bin", "python")
    return [Command((interpreter, "-m", "venv", environment)),
            Command((*_pip_of(own), *_pip_wishes(view, [])))]


# ------------------------------------------------------------------------------ bringing it in line


def _uv(view: ProjectView, environment: str, interpreter: str, changed: list[str]) -> Steps:
    """A changed lock is carried out as it is; changed wishes are locked first."""
    argv = ("uv", "sync", "--frozen") if "uv.lock" in changed else ("uv", "sync")
    return [Command(argv, {"UV_PROJECT_ENVIRONMENT": environment})]


def _poetry(view: ProjectView, environment: str, interpreter: str, changed: list[str]) -> Steps:
    return [Command(("poetry", "install", "--no-interaction", "--sync"),
                    {"VIRTUAL_ENV": environment})]


def _pipenv(view: ProjectView, environment: str, interpreter: str, changed: list[str]) -> Steps:
    return [Command(("pipenv", "sync" if "Pipfile.lock" in changed else "install"),
                    {"VIRTUAL_ENV": environment})]


def _conda(view: ProjectView, environment: str, interpreter: str, changed: list[str]) -> Steps:
    file = conda_file(view) or "environment.yml"
    return [Command(("conda", "env", "update", "--prefix", environment, "--file", file,
                     "--prune"))]


def _pip(view: ProjectView, environment: str, interpreter: str, changed: list[str]) -> Steps:
    """By the environment's own pip; one that uv made has none, and is uv's to change."""
    has_pip = any(view.is_dir(os.path.join(folder, "pip"))
                  for folder in site_packages(view, environment))
    install = _pip_of(interpreter) if has_pip else (
        "uv", "pip", "install", "--python", interpreter)
    return [Command((*install, *_pip_wishes(view, changed)))]


def _pip_of(interpreter: str) -> tuple[str, ...]:
    """Its output goes to a log: no bars."""
    return (interpreter, "-m", "pip", "install", "--disable-pip-version-check",
            "--progress-bar=off")


def _pip_wishes(view: ProjectView, changed: Sequence[str]) -> tuple[str, ...]:
    """The plainest requirements file and what changed beside it, in one go: pip sees conflicts."""
    files = [name for name in requirements_files(view) if name.endswith(".txt")
             and not name.rpartition("/")[2].startswith("constraints")]
    wanted = [name for place, name in enumerate(files) if place == 0 or name in changed]
    flags = [part for name in wanted for part in ("--requirement", name)]
    if get(read_pyproject(view), "project", "dependencies") or view.exists("setup.py"):
        flags += ["--editable", "."]
    return tuple(flags)


_STEPS: Mapping[str, Callable[[ProjectView, str, str, list[str]], Steps]] = {
    "uv": _uv, "poetry": _poetry, "pipenv": _pipenv, "conda": _conda, "pip": _pip}
_MAKE: Mapping[str, Callable[[ProjectView, str, str], Steps]] = {
    "uv": _make_uv, "poetry": _make_poetry, "pipenv": _make_pipenv, "conda": _make_conda,
    "pip": _make_pip}
