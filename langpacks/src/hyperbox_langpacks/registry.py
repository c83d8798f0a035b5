"""Which packs there are, and which of them fits a project.

A pack is an entry point of the group ``hyperbox.packs``: listed by its name, and imported only
when it is looked for. The built-in ones are also known without any metadata, for inside the
``.pyz`` that is put on a target there is none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module

from hyperbox_langpacks.base import Command, Detection, Pack, PackError, ProjectView

GROUP = "hyperbox.packs"
BUILT_IN: Mapping[str, str] = {"python": "hyperbox_langpacks.python:PACK"}


def pack_names() -> tuple[str, ...]:
    """Names of all packs, sorted; none of them is imported."""
    return tuple(sorted(_loaders()))


def load_pack(name: str) -> Pack:
    """The pack of that name. Raises PackError: unknown, or it can't be imported."""
    loader = _loaders().get(name)
    if loader is None:
        raise PackError(f"there is no language pack {name!r}",
                        hint="known packs: " + ", ".join(pack_names()))
    try:
        pack = loader()
    except (ImportError, AttributeError) as error:
        raise PackError(f"the language pack {name!r} can't be loaded: {error}") from error
    if not isinstance(pack, Pack):
        raise PackError(f"the language pack {name!r} lacks parts of the Pack protocol")
    return pack


def find_pack(view: ProjectView, environ: Mapping[str, str],
              command: Command | None = None) -> tuple[Pack | None, Detection]:
    """The pack that fits best, and what it found.

    With a ``command`` of the user, the pack that takes it; none where no pack knows it, and the
    program is then run as it is. Without one, raises PackError where nothing is found.
    """
    packs, problems = _load_all()
    if command is not None:
        pack, found = _for_command(packs, view, environ, command)
        return pack, found._replace(notes=(*found.notes, *problems))
    all_found = [(pack, detection) for pack in packs
                 if (detection := pack.detect(view, environ)) is not None]
    if not all_found:
        raise PackError("found no program that can be run here",
                        hint='say how it is started: [app] command = ["python", "app.py"]',
                        file="hyperbox.toml")
    pack, found = max(all_found, key=lambda one: one[1].certainty)
    return pack, found._replace(notes=(*found.notes, *problems))


def _load_all() -> tuple[list[Pack], list[str]]:
    """All packs that can be loaded, and a sentence for the user about each that can't."""
    packs, problems = [], []
    for name in pack_names():
        try:
            packs.append(load_pack(name))
        except PackError as error:
            problems.append(error.message)
    return packs, problems


def _for_command(packs: list[Pack], view: ProjectView, environ: Mapping[str, str],
                 command: Command) -> tuple[Pack | None, Detection]:
    for pack in packs:
        try:
            return pack, pack.complete(view, environ, command)
        except PackError:
            continue
    return None, Detection("none", command, "the command is given, and no pack knows it", 0.1)


def _loaders() -> dict[str, Callable[[], object]]:
    """Built-in packs, and on top of them what is installed."""
    loaders: dict[str, Callable[[], object]] = {
        name: _from_place(place) for name, place in BUILT_IN.items()}
    if not _others_are_installed():
        return loaders
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP):
        if entry.name not in BUILT_IN:
            loaders[entry.name] = entry.load
    return loaders


def _others_are_installed() -> bool:
    """Whether a distribution that is not ours may have a pack.

    A glance at the files in place of importlib.metadata, whose import alone is a quarter of what
    `hyperbox config` may take; hardly anybody has a pack of others.
    """
    return any(_may_have_packs(folder) for folder in sys.path)


def _may_have_packs(folder: str) -> bool:
    try:
        names = os.listdir(folder or ".")
    except NotADirectoryError:
        return True  # an archive: importlib.metadata looks inside
    except OSError:
        return False
    return any(_names_packs(os.path.join(folder, name, "entry_points.txt")) for name in names
               if name.endswith((".dist-info", ".egg-info"))
               and not name.startswith("hyperbox_langpacks-"))


def _names_packs(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return f"[{GROUP}]" in file.read()
    except OSError:
        return False


def _from_place(place: str) -> Callable[[], object]:
    def load() -> object:
        module, _, name = place.partition(":")
        return getattr(import_module(module), name)

    return load
