"""Where the program's own modules are searched for, whichever tree it is run from.

In a ``Detection`` the project's entries stay relative: an older generation is run from a tree of
its own, and must not import the source that is being edited.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from hyperbox_langpacks.base import Detection, ProjectView
from hyperbox_langpacks.python.environment import IN_TREE, site_packages
from hyperbox_langpacks.python.toml import get, read_toml


def entries_of(env: Mapping[str, str]) -> list[str]:
    """The entries of PYTHONPATH."""
    return [one for one in env.get("PYTHONPATH", "").split(os.pathsep) if one]


def with_search_path(env: Mapping[str, str], environ: Mapping[str, str],
                     own: Iterable[str] = ()) -> dict[str, str]:
    """A command's variables; its own search path in front of the one that is inherited."""
    entries = list(dict.fromkeys([*entries_of(env), *own, *entries_of(environ)]))
    return {**env, "PYTHONPATH": os.pathsep.join(entries)} if entries else dict(env)


def source_folder(view: ProjectView, words: Iterable[str]) -> list[str]:
    """``src``, where the words of a command name a module that lies there and not in the root."""
    names = re.findall(r"[A-Za-z_]\w*", " ".join(words))
    below = any(_is_module(view, "src/" + name) and not _is_module(view, name) for name in names)
    return ["src"] if below else []


def _is_module(view: ProjectView, place: str) -> bool:
    return view.exists(place + "/__init__.py") or view.exists(place + ".py")


def search_entries(view: ProjectView, found: Detection) -> list[str]:
    """What stands behind the shim in PYTHONPATH, absolute."""
    entries = [os.path.join(view.root, one) for one in entries_of(found.command.env)]
    return list(dict.fromkeys([*entries, *_editable_entries(view, found)]))


def _editable_entries(view: ProjectView, found: Detection) -> Iterator[str]:
    """Where another tree than the environment's is run: its folders for those in ``.pth`` files.

    An editable install is a ``.pth`` file with a folder of the tree that is edited.
    """
    prefix = os.path.dirname(os.path.dirname(found.interpreter or ""))
    home, name = os.path.split(prefix)
    if name not in IN_TREE or home == view.root or not _is_same_project(view, home):
        return
    for folder in site_packages(view, prefix):
        for file in view.list_dir(folder):
            text = view.read_text(os.path.join(folder, file)) if file.endswith(".pth") else None
            inside = [os.path.relpath(line, home) for line in (text or "").splitlines()
                      if line == home or line.startswith(home + "/")]
            yield from (os.path.normpath(os.path.join(view.root, one)) for one in inside)


def _is_same_project(view: ProjectView, home: str) -> bool:
    """Whether the environment's tree is of our project, not one whose environment is borrowed."""
    ours, theirs = (get(read_toml(view.read_text(os.path.join(folder, "pyproject.toml")) or ""),
                        "project", "name") for folder in ("", home))
    return ours is not None and ours == theirs
