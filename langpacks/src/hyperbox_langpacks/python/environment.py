"""Finds the interpreter that a project runs with, and what is installed there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hyperbox_langpacks.base import PackError, ProjectView
from hyperbox_langpacks.python.toml import get, read_toml

IN_TREE = (".venv", "venv", "env", ".env", ".virtualenv")


class Environment(NamedTuple):
    """An interpreter and where its libraries are."""

    interpreter: str
    prefix: str
    """The environment's folder; also of a system's Python (``/usr``)."""
    manager: str | None
    """What the project's dependencies are managed with, or None."""
    why: str
    """How it was found, as half a sentence: ``the environment .venv``."""
    is_own: bool
    """Whether it belongs to the project, and isn't just the first python3 on PATH."""
    packages: frozenset[str] = frozenset()
    """Import names of what is installed; empty when that can't be listed."""

    def has(self, package: str) -> bool:
        """Whether a top-level package can be imported."""
        return package in self.packages

    def may_have(self, package: str) -> bool:
        """As ``has``, and true where nothing is known."""
        return not self.packages or package in self.packages

    @property
    def scripts(self) -> str:
        """The folder of its console scripts."""
        return os.path.dirname(self.interpreter)


def find_environment(view: ProjectView, environ: Mapping[str, str]) -> Environment:
    """The project's environment. Raises PackError where there is no Python at all."""
    manager = find_manager(view)
    for prefix, why in _candidates(view, environ, manager):
        interpreter = _interpreter_in(view, prefix)
        if interpreter is not None:
            return Environment(interpreter, prefix, manager, why, True,
                               installed(view, prefix))
    return _from_path(view, environ, manager)


def environment_of(view: ProjectView, program: str) -> Environment | None:
    """The environment that a program given by its path stands in; None: it is in none.

    ``/x/bin/python3`` and ``/x/bin/uvicorn`` both say that the program runs in ``/x``, whatever
    else the project has.
    """
    if "/" not in program:
        return None
    path = os.path.join(view.root, program)
    prefix = os.path.dirname(os.path.dirname(path))
    name = os.path.basename(path)
    own = path if name.startswith("python") and view.exists(path) else None
    interpreter = own or _interpreter_in(view, prefix)
    if interpreter is None or os.path.dirname(interpreter) != os.path.dirname(path):
        return None
    is_own = view.exists(os.path.join(prefix, "pyvenv.cfg"))
    return Environment(interpreter, prefix, find_manager(view), f"{program}, as the command says",
                       is_own, installed(view, prefix))


def own_folder(view: ProjectView, found: Environment) -> str | None:
    """The environment's folder, where it is the project's own, to be changed for it alone.

    Not a system's or conda's base, and not the one that stands in the tree of another project.
    """
    if not found.is_own:
        return None
    prefix = os.path.normpath(found.prefix)
    home, name = os.path.split(prefix)
    root = view.root.rstrip("/")
    if prefix.startswith(root + "/"):
        return prefix
    in_another_tree = name in IN_TREE and not (root + "/").startswith(home + "/")
    is_environment = view.exists(os.path.join(prefix, "pyvenv.cfg")) or (
        os.path.basename(home) == "envs" and view.is_dir(os.path.join(prefix, "conda-meta")))
    return prefix if is_environment and not in_another_tree else None


def find_manager(view: ProjectView) -> str | None:
    """uv, poetry, pipenv, conda or pip: what is named by the project's files."""
    if view.exists("uv.lock"):
        return "uv"
    if view.exists("poetry.lock"):
        return "poetry"
    if view.exists("Pipfile"):
        return "pipenv"
    project = read_pyproject(view)
    if get(project, "tool", "poetry") is not None:
        return "poetry"
    if get(project, "tool", "uv") is not None:
        return "uv"
    if conda_file(view) is not None:
        return "conda"
    if requirements_files(view) or get(project, "project") is not None:
        return "pip"
    return None


def read_pyproject(view: ProjectView) -> dict[str, object]:
    """``pyproject.toml`` as a table, empty where there is none."""
    return read_toml(view.read_text("pyproject.toml") or "")


def conda_file(view: ProjectView) -> str | None:
    """The name of the conda environment file, if there is one."""
    return next((name for name in ("environment.yml", "environment.yaml") if view.exists(name)),
                None)


def requirements_files(view: ProjectView) -> list[str]:
    """Requirements files in the root and in ``requirements/``, the plainest first."""
    names = [name for name in view.list_dir() if is_requirements(name)]
    names += [f"requirements/{name}" for name in view.list_dir("requirements")
              if is_requirements(f"requirements/{name}")]
    return sorted(names, key=lambda name: (name != "requirements.txt", len(name), name))


def is_requirements(path: str) -> bool:
    """Whether a path is that of a requirements or constraints file."""
    folder, _, name = path.rpartition("/")
    if not name.endswith((".txt", ".in")):
        return False
    return name.startswith(("requirements", "constraints")) or folder == "requirements"


# ------------------------------------------------------------------------ where it may stand


def _candidates(view: ProjectView, environ: Mapping[str, str],
                manager: str | None) -> Iterator[tuple[str, str]]:
    """Folders of environments, the likeliest first, and how they were found."""
    for name in IN_TREE:
        if view.exists(f"{name}/pyvenv.cfg") or view.exists(f"{name}/bin/python"):
            yield f"{view.root}/{name}", f"the environment {name}"
    if project_environment := environ.get("UV_PROJECT_ENVIRONMENT"):
        path = os.path.join(view.root, project_environment)
        yield path, f"UV_PROJECT_ENVIRONMENT ({path})"
    if manager == "poetry":
        yield from _poetry_environments(view, environ)
    if manager == "pipenv":
        yield from _pipenv_environments(view, environ)
    if manager == "conda":
        yield from _conda_environments(view, environ)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if environ.get(name):
            yield environ[name], f"{name} ({environ[name]})"


def _poetry_environments(view: ProjectView,
                         environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Poetry names them by the project and eight letters of its path's digest."""
    cache = environ.get("POETRY_CACHE_DIR") or os.path.join(
        environ.get("XDG_CACHE_HOME") or os.path.join(_home(environ), ".cache"), "pypoetry")
    folder = environ.get("POETRY_VIRTUALENVS_PATH") or os.path.join(cache, "virtualenvs")
    import base64  # only poetry's projects pay for them
    import hashlib
    digest = base64.urlsafe_b64encode(hashlib.sha256(view.root.encode()).digest())[:8].decode()
    for name in reversed(view.list_dir(folder)):
        if f"-{digest}-py" in name:
            yield os.path.join(folder, name), f"poetry's environment {name}"


def _pipenv_environments(view: ProjectView,
                         environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pipenv writes the project's path into each environment."""
    data = environ.get("XDG_DATA_HOME") or os.path.join(_home(environ), ".local/share")
    folder = environ.get("WORKON_HOME") or os.path.join(data, "virtualenvs")
    for name in view.list_dir(folder):
        owner = view.read_text(os.path.join(folder, name, ".project"))
        if owner is not None and owner.strip() == view.root:
            yield os.path.join(folder, name), f"pipenv's environment {name}"


def _conda_environments(view: ProjectView,
                        environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The environment that the project's file names, wherever conda keeps them."""
    text = view.read_text(conda_file(view) or "") or ""
    named = re.search(r"^name:\s*['\"]?([^'\"\s#]+)", text, re.MULTILINE)
    active = environ.get("CONDA_PREFIX", "")
    if named is None:
        return
    if os.path.basename(active) == named[1]:
        yield active, f"the conda environment {named[1]}"
    for folder in _conda_folders(environ):
        yield os.path.join(folder, named[1]), f"the conda environment {named[1]}"


def _conda_folders(environ: Mapping[str, str]) -> Iterator[str]:
    yield from filter(None, environ.get("CONDA_ENVS_PATH", "").split(os.pathsep))
    bases = [os.path.dirname(os.path.dirname(environ["CONDA_EXE"]))] if environ.get(
        "CONDA_EXE") else []
    home = _home(environ)
    bases += [os.path.join(home, name) for name in (
        "miniconda3", "miniforge3", "mambaforge", "anaconda3", ".conda", "micromamba")]
    if root := environ.get("MAMBA_ROOT_PREFIX"):
        bases.append(root)
    for base in bases:
        yield os.path.join(base, "envs")


def _home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or os.path.expanduser("~")


def _interpreter_in(view: ProjectView, prefix: str) -> str | None:
    """An environment's interpreter, where it is there: its link may lead to one that is gone."""
    for name in ("python", "python3"):
        path = os.path.join(prefix, "bin", name)
        if view.exists(path):
            return path
    return None


def _from_path(view: ProjectView, environ: Mapping[str, str], manager: str | None) -> Environment:
    for folder in environ.get("PATH", "").split(os.pathsep):
        for name in ("python3", "python"):
            path = os.path.join(folder, name)
            if not folder.startswith("/") or not view.exists(path):
                continue
            real = _behind_shim(view, environ, path) if "shims" in folder else path
            if real is not None:
                prefix = os.path.dirname(os.path.dirname(real))
                return Environment(real, prefix, manager, f"{name} on PATH", False,
                                   installed(view, prefix))
    raise PackError("there is no Python: neither an environment of the project nor python3 on PATH",
                    hint="python3 -m venv .venv, or install python3")


def _behind_shim(view: ProjectView, environ: Mapping[str, str], path: str) -> str | None:
    """What a version manager's stand-in would start; such a script costs 30 ms each time."""
    root = os.path.dirname(os.path.dirname(path))
    texts = (environ.get("PYENV_VERSION"), view.read_text(".python-version"),
             view.read_text(os.path.join(root, "version")))
    for text in filter(None, texts):
        wanted = text.split()[0] if text.split() else ""
        for version in (wanted, *reversed(_versions_like(view, root, wanted))):
            real = os.path.join(root, "versions", version, "bin", "python3")
            if version and view.exists(real):
                return real
    return None


def _versions_like(view: ProjectView, root: str, wanted: str) -> list[str]:
    names = [name for name in view.list_dir(os.path.join(root, "versions"))
             if wanted and name.startswith(wanted + ".")]
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else -1
                                           for part in name.split(".")])


# ------------------------------------------------------------------------ what is installed


def installed(view: ProjectView, prefix: str) -> frozenset[str]:
    """Import names of the packages below a prefix, with the system's where they are let in."""
    names: set[str] = set()
    for folder in _library_folders(view, prefix):
        for entry in view.list_dir(folder):
            stem, extension = os.path.splitext(entry)
            if extension in ("", ".py", ".so"):
                names.add(stem.partition(".")[0])
    return frozenset(names - {"__pycache__"})


def _library_folders(view: ProjectView, prefix: str) -> Iterator[str]:
    yield from site_packages(view, prefix)
    config = view.read_text(os.path.join(prefix, "pyvenv.cfg"))
    if config is None:
        if prefix == "/usr":
            yield from ("/usr/lib/python3/dist-packages", *_dist_packages(view, "/usr/local"))
        return
    if re.search(r"^include-system-site-packages\s*=\s*true", config, re.MULTILINE):
        home = re.search(r"^home\s*=\s*(.+?)\s*$", config, re.MULTILINE)
        if home is not None:
            base = os.path.dirname(home[1])
            yield from _library_folders(view, base)


def site_packages(view: ProjectView, prefix: str) -> Iterator[str]:
    """Folders of libraries below a prefix."""
    for lib in ("lib", "lib64"):
        for name in view.list_dir(os.path.join(prefix, lib)):
            if _is_version_folder(name):
                yield os.path.join(prefix, lib, name, "site-packages")


def _is_version_folder(name: str) -> bool:
    """Whether it is ``python3.12`` or its like without a lock, ``python3.13t``."""
    return name.startswith("python3.") and name[8:].removesuffix("t").isdigit()


def _dist_packages(view: ProjectView, prefix: str) -> Iterator[str]:
    for name in view.list_dir(os.path.join(prefix, "lib")):
        if _is_version_folder(name):
            yield os.path.join(prefix, "lib", name, "dist-packages")
