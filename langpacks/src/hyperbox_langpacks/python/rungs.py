"""The cheapest rung that is right for a set of changes. Pure; each path is judged by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from hyperbox_langpacks.base import FileChange, ProjectView, RunFacts, Rung, RungChoice
from hyperbox_langpacks.python.environment import IN_TREE, is_requirements, read_pyproject
from hyperbox_langpacks.python.toml import get

LOCKS = frozenset(("uv.lock", "poetry.lock", "pdm.lock", "Pipfile", "Pipfile.lock", "setup.py",
                   "setup.cfg", "environment.yml", "environment.yaml", "pylock.toml",
                   ".python-version"))
ASSETS = frozenset((".html", ".htm", ".css", ".scss", ".sass", ".less", ".js", ".mjs", ".ts",
                    ".tsx", ".jsx", ".vue", ".svelte", ".map", ".png", ".jpg", ".jpeg", ".gif",
                    ".svg", ".ico", ".webp", ".avif", ".woff", ".woff2", ".ttf", ".eot", ".otf",
                    ".jinja", ".jinja2", ".j2", ".mako", ".webmanifest", ".mp3", ".mp4", ".webm",
                    ".pdf"))
"""What a page is made of: read by the program for each answer, or by the browser."""
_INSTALLS = (("project", "dependencies"), ("project", "optional-dependencies"),
             ("project", "dynamic"), ("project", "scripts"), ("dependency-groups",),
             ("tool", "poetry"), ("tool", "uv"), ("tool", "pdm"), ("build-system",))
"""Tables of ``pyproject.toml`` that say what is installed."""
_PYTHON = (".py", ".pyw", ".pyi", ".so", ".pyx", ".pxd")
# Patterns as text, compiled at the first save: who only detects a project needs none of them.
_START = r"(^|/)(sitecustomize\.py|usercustomize\.py|[^/]+\.pth|pyvenv\.cfg)$"
_METADATA = r"(^|/)[^/]+\.(dist-info|egg-info)(/|$)"
_ENV = r"(^|/)(\.env(\..+)?|\.flaskenv)$"
_NEVER_READ = (
    r"^\.(github|circleci|vscode|idea)/"
    r"|(^|/)\.(gitignore|gitattributes|dockerignore|editorconfig|pre-commit-config\.ya?ml)$")
"""What is for git, editors and the like. Nothing else is surely unread where it is not known what
the program has read: some show their README or their docs, and keep what they read."""


class Surroundings(NamedTuple):
    """What the project's other files say that bears on a change."""

    environments: tuple[str, ...] = ()
    """Folders of environments below the root."""
    pyproject_installs: bool = True
    """Whether ``pyproject.toml`` says what is installed, and not just how tools are set."""


def surroundings(view: ProjectView) -> Surroundings:
    """Look at the project for what ``choose`` needs."""
    project = read_pyproject(view)
    installs = any(get(project, *keys) is not None for keys in _INSTALLS)
    return Surroundings(tuple(name for name in IN_TREE if view.exists(f"{name}/pyvenv.cfg")),
                        installs or not project)


def choose(changes: Sequence[FileChange], facts: RunFacts, around: Surroundings) -> RungChoice:
    """The highest rung that one of the changes needs, and the reason, never above the allowed."""
    if not changes:
        return RungChoice(Rung.NOTHING, "nothing has changed")
    choice = max((judge(change, facts, around) for change in changes),
                 key=lambda one: one.rung)
    if not facts.running and choice.rung < Rung.REINSTALL:
        choice = _restart(facts, "the program is not running")
    if choice.rung <= facts.highest:
        return choice
    return RungChoice(facts.highest, f"{choice.why}; {choice.rung.word} is above the highest rung "
                                     f"allowed, {facts.highest.word}")


def judge(change: FileChange, facts: RunFacts, around: Surroundings) -> RungChoice:
    """The rung for one change."""
    path = change.path
    if path in LOCKS or (is_requirements(path) and change.kind != "dir"):
        return RungChoice(Rung.REINSTALL, f"{path} says what is installed")
    if path == "pyproject.toml" and around.pyproject_installs:
        return RungChoice(Rung.REINSTALL, f"{path} may say what is installed")
    if any(path == one or path.startswith(one + "/") for one in around.environments):
        return RungChoice(Rung.COLD, f"{path} lies in the environment")
    if re.search(_START, path) or re.search(_METADATA, path):
        return RungChoice(Rung.COLD, f"{path} is read when Python starts")
    if re.search(_ENV, path):
        return RungChoice(Rung.COLD, f"{path} may change the program's environment")
    if _is_taken_in(change, facts.loaded):
        return _restart(facts, f"{path} is {_how(change)}")
    if path.endswith(_PYTHON):
        return _python(change, facts)
    return _other(change, facts)


def _is_taken_in(change: FileChange, loaded: frozenset[str]) -> bool:
    """Whether the program holds what stood there: the file, or a listing of its folder."""
    path = change.path
    if path in loaded or path + "/" in loaded:
        return True
    if change.kind == "dir" and any(one.startswith(path + "/") for one in loaded):
        return True
    folder = path.rpartition("/")[0]
    return change.what != "modified" and (folder + "/" if folder else "./") in loaded


def _how(change: FileChange) -> str:
    return {"added": "new where the program looked", "deleted": "gone, and the program had it"}.get(
        change.what, "loaded by the program")


def _python(change: FileChange, facts: RunFacts) -> RungChoice:
    path = change.path
    if not facts.loaded:
        return _restart(facts, f"{path} is source, and what is loaded is not known")
    stem = path.removesuffix("/__init__.py").rpartition("/")[2].partition(".")[0]
    if change.what != "modified" and stem in facts.modules:
        return _restart(facts, f"{path} has the name of a library that is loaded")
    # It is read when it is first imported, and then as it is now: the loader keeps no old code.
    return RungChoice(Rung.NOTHING, f"{path} is not loaded by the program")


def _other(change: FileChange, facts: RunFacts) -> RungChoice:
    path = change.path
    extension = "." + path.rpartition(".")[2].lower()
    # A server of files loads nothing of its own. One that has only begun to tell is not taken for
    # one on the word of anything but an asset.
    known = facts.loaded or (facts.told and extension in ASSETS)
    if not known and not re.search(_NEVER_READ, path):
        return _restart(facts, f"{path} may be read by the program: what it read is not known")
    if extension in ASSETS:
        return RungChoice(Rung.NOTIFY, f"{path} is read anew for each answer")
    return RungChoice(Rung.NOTHING, f"{path} was not read by the program")


def _restart(facts: RunFacts, why: str) -> RungChoice:
    if facts.warm_ready:
        return RungChoice(Rung.WARM, why)
    refused = facts.warm_refused or "no prepared parent is ready"
    return RungChoice(Rung.COLD, f"{why}; not warm: {refused}")
