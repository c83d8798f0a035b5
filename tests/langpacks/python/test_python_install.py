"""What makes the environment, and what brings it in line with changed locks and requirements."""

from __future__ import annotations

import pytest

from hyperbox_langpacks.base import Command, Detection, FileChange, PackError
from hyperbox_langpacks.moved import MovedView, moved
from hyperbox_langpacks.python import PACK
from hyperbox_langpacks.view import MemoryView

VENV = "/project/.venv"
PY = f"{VENV}/bin/python"
PIP = (PY, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off")
FOUND = Detection("python", Command((PY, "app.py")), "", 1.0, interpreter=PY, environment=VENV)
NONE = FOUND._replace(interpreter="/usr/bin/python3", environment=None)
PROJECT = "[project]\nname = 'x'\ndependencies = ['flask']\n"
ENVIRONMENT = {".venv/pyvenv.cfg": "", ".venv/bin/python": "",
               ".venv/lib/python3.12/site-packages/pip/__init__.py": ""}
UV = {"UV_PROJECT_ENVIRONMENT": VENV}
ACTIVE = {"VIRTUAL_ENV": VENV}

TABLE: dict[str, tuple[dict[str, str], str, Command]] = {
    "uv": ({"uv.lock": "", "pyproject.toml": PROJECT}, "uv.lock",
           Command(("uv", "sync", "--frozen"), UV)),
    "uv, the project file": ({"uv.lock": "", "pyproject.toml": PROJECT}, "pyproject.toml",
                             Command(("uv", "sync"), UV)),
    "poetry": ({"poetry.lock": ""}, "poetry.lock",
               Command(("poetry", "install", "--no-interaction", "--sync"), ACTIVE)),
    "pipenv": ({"Pipfile": "", "Pipfile.lock": ""}, "Pipfile.lock",
               Command(("pipenv", "sync"), ACTIVE)),
    "pipenv, the wishes": ({"Pipfile": "", "Pipfile.lock": ""}, "Pipfile",
                           Command(("pipenv", "install"), ACTIVE)),
    "conda": ({"environment.yml": "name: x\n"}, "environment.yml",
              Command(("conda", "env", "update", "--prefix", VENV, "--file", "environment.yml",
                       "--prune"))),
    "pip": ({"requirements.txt": "flask"}, "requirements.txt",
            Command((*PIP, "--requirement", "requirements.txt"))),
    "pip, the file that changed": (
        {"requirements.txt": "flask", "requirements/dev.txt": "x"}, "requirements/dev.txt",
        Command((*PIP, "--requirement", "requirements.txt",
                 "--requirement", "requirements/dev.txt"))),
    "pip, a project": ({"pyproject.toml": PROJECT}, "pyproject.toml",
                       Command((*PIP, "--editable", "."))),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_plan_is_the_managers_own_command(name: str) -> None:
    files, changed, step = TABLE[name]
    plan = PACK.install(MemoryView({**ENVIRONMENT, **files}), FOUND,
                        [FileChange(changed, "modified")])
    assert plan is not None
    assert [(one.argv, dict(one.env)) for one in plan.steps] == [(step.argv, dict(step.env))]
    assert changed in plan.why
    assert plan.environment == VENV


def test_an_environment_without_pip_is_changed_by_uv() -> None:
    view = MemoryView({"requirements.txt": "flask", ".venv/pyvenv.cfg": ""})
    plan = PACK.install(view, FOUND, [FileChange("requirements.txt", "modified")])
    assert plan is not None
    assert plan.steps[0].argv[:5] == ("uv", "pip", "install", "--python", PY)


def test_what_is_found_in_a_copy_is_changed_there() -> None:
    found = moved(FOUND, VENV, "/home/7")
    view = MemoryView({"requirements.txt": "", "/home/7/pyvenv.cfg": "",
                       "/home/7/lib/python3.12/site-packages/pip/__init__.py": ""})
    plan = PACK.install(view, found, [FileChange("requirements.txt", "modified")])
    assert plan is not None
    assert (plan.steps[0].argv[0], plan.environment) == ("/home/7/bin/python", "/home/7")


def test_a_copy_is_seen_where_the_environment_stands() -> None:
    view = MovedView(MemoryView({"app.py": "x", ".venv/bin/python": "", "/home/7/bin/python": "",
                                 "/home/7/bin/gunicorn": ""}), VENV, "/home/7")
    assert view.exists(".venv/bin/gunicorn")
    assert view.exists(f"{VENV}/bin/gunicorn")
    assert view.list_dir(".venv/bin") == ["gunicorn", "python"]
    assert view.read_text("app.py") == "x"
    assert view.is_dir(".venv")


def test_an_environment_that_cannot_be_moved_is_said_to_be_so() -> None:
    plan = PACK.install(MemoryView({"environment.yml": "name: x\n"}), FOUND,
                        [FileChange("environment.yml", "modified")])
    assert plan is not None
    assert plan.environment is None


def test_source_needs_no_install() -> None:
    assert PACK.install(MemoryView({"uv.lock": ""}), FOUND, [FileChange("app.py", "added")]) is None


def test_a_project_without_dependencies_needs_none() -> None:
    view = MemoryView({"pyproject.toml": "[tool.ruff]\nline-length = 100\n"})
    assert PACK.install(view, FOUND, [FileChange("pyproject.toml", "modified")]) is None
    assert PACK.make(view, {}, NONE) is None


@pytest.mark.parametrize(("files", "hint"), [
    ({"requirements.txt": "flask"},
     "python3 -m venv .venv && .venv/bin/pip install --requirement requirements.txt"),
    ({"uv.lock": ""}, "uv sync"),
    ({"poetry.lock": ""}, "poetry install"),
])
def test_nothing_is_installed_into_a_python_that_others_use(files: dict[str, str],
                                                            hint: str) -> None:
    with pytest.raises(PackError, match="/usr/bin/python3") as raised:
        PACK.install(MemoryView(files), NONE, [FileChange(next(iter(files)), "modified")])
    assert raised.value.hint == hint


def found_in(files: dict[str, str], environ: dict[str, str],
             command: tuple[str, ...] = ("python", "app.py")) -> Detection:
    return PACK.complete(MemoryView(files), environ, Command(command))


OTHERS = {"/other/.venv/pyvenv.cfg": "", "/other/.venv/bin/python": "",
          "/envs/x/pyvenv.cfg": "", "/envs/x/bin/python": "", "/usr/bin/python3": "",
          "/conda/bin/python": "", "/conda/conda-meta/history": "",
          "/conda/envs/y/bin/python": "", "/conda/envs/y/conda-meta/history": ""}


@pytest.mark.parametrize(("files", "environ", "command", "own"), [
    (ENVIRONMENT, {}, ("python", "app.py"), VENV),
    ({}, {"VIRTUAL_ENV": "/envs/x"}, ("python", "app.py"), "/envs/x"),
    ({}, {"VIRTUAL_ENV": "/other/.venv"}, ("python", "app.py"), None),
    ({}, {"PATH": "/envs/x/bin"}, ("python", "app.py"), None),
    ({}, {"PATH": "/usr/bin"}, ("python", "app.py"), None),
    ({}, {"CONDA_PREFIX": "/conda"}, ("python", "app.py"), None),
    ({}, {"CONDA_PREFIX": "/conda/envs/y"}, ("python", "app.py"), "/conda/envs/y"),
    ({}, {}, ("/envs/x/bin/python", "app.py"), "/envs/x"),
    ({}, {}, ("/usr/bin/python3", "app.py"), None),
])
def test_whose_environment_it_is(files: dict[str, str], environ: dict[str, str],
                                 command: tuple[str, ...], own: str | None) -> None:
    assert found_in({**OTHERS, **files, "app.py": ""}, environ, command).environment == own


# ------------------------------------------------------------------------------------ making it

BIN = {"/bin/uv": "", "/bin/poetry": "", "/bin/pipenv": ""}
PATH = {"PATH": "/bin"}


def test_pip_makes_it_with_the_python_that_is_there() -> None:
    plan = PACK.make(MemoryView({"requirements.txt": "flask"}), PATH, NONE)
    assert plan is not None
    assert [step.argv for step in plan.steps] == [
        ("/usr/bin/python3", "-m", "venv", VENV), (*PIP, "--requirement", "requirements.txt")]
    assert plan.environment == VENV
    assert plan.why == "pip makes the environment of requirements.txt"


@pytest.mark.parametrize(("files", "argv", "variable"), [
    ({"uv.lock": ""}, ("uv", "sync", "--frozen"), "UV_PROJECT_ENVIRONMENT"),
    ({"pyproject.toml": "[tool.uv]\n"}, ("uv", "sync"), "UV_PROJECT_ENVIRONMENT"),
    ({"poetry.lock": ""}, ("poetry", "install", "--no-interaction", "--sync"),
     "POETRY_VIRTUALENVS_IN_PROJECT"),
    ({"Pipfile": ""}, ("pipenv", "install"), "PIPENV_VENV_IN_PROJECT"),
])
def test_managers_make_it_in_the_tree(files: dict[str, str], argv: tuple[str, ...],
                                      variable: str) -> None:
    plan = PACK.make(MemoryView({**BIN, **files}), PATH, NONE)
    assert plan is not None
    assert plan.steps[0].argv == argv
    assert variable in plan.steps[0].env
    with pytest.raises(PackError, match="is not on PATH here") as raised:
        PACK.make(MemoryView(files), PATH, NONE)
    assert raised.value.hint


def test_it_is_made_where_the_command_looks_for_it() -> None:
    files = {"requirements.txt": "flask", "/usr/bin/python3": "", "app.py": ""}
    found = found_in(files, {"PATH": "/usr/bin"}, ("venv/bin/python", "app.py"))
    plan = PACK.make(MemoryView(files), {}, found)
    assert plan is not None
    assert plan.environment == "/project/venv"


def test_none_is_made_that_the_command_would_not_use() -> None:
    files = {"requirements.txt": "flask", "/usr/bin/python3": "", "app.py": ""}
    found = found_in(files, {}, ("/usr/bin/python3", "app.py"))
    assert PACK.make(MemoryView(files), {}, found) is None
    assert PACK.make(MemoryView({**files, **ENVIRONMENT}), {}, FOUND) is None
