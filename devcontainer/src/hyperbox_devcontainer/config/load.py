"""From the file, the environment and flags to one configuration, or to all that is wrong with it.

Later words win: default, detection, ``hyperbox.toml``, environment, flag.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperbox_devcontainer.config import detection
from hyperbox_devcontainer.config.model import App, Config, Detected, Origin, Reload, Sync
from hyperbox_devcontainer.config.reader import Reader
from hyperbox_devcontainer.config.reading import read
from hyperbox_devcontainer.errors import ConfigError, WorkstationError
from hyperbox_devcontainer.paths import find_project


def load(project_dir: str, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None, *,
         detect: detection.Detect = detection.detect) -> Config:
    """The configuration of the project in ``project_dir``.

    ``flags``: values by dotted key (``{"app.port": 9000}``), and ``"target"`` for the target's
    name. Raises InputError where there is no such folder, ConfigError with every problem that was
    found. Changes nothing.
    """
    project = find_project(project_dir)
    source = read(project.root)
    reader = Reader(source)
    if source is not None:
        reader.take_file(source)
    reader.take_environment(environ)
    reader.take_flags(flags or {})
    reader.check_files(project.root)
    targets, target = reader.targets((flags or {}).get("target"))
    reader.check_together(target)
    if reader.problems:
        raise ConfigError(sorted(reader.problems, key=_place_in_order))
    values = reader.values
    found = detect(project.root, environ, values.get("app.command"), values.get("app.env", {}),
                   values.get("app.cwd", ""))
    _fill_from_detection(reader, found)
    return Config(
        project=project, file=source.name if source else None,
        app=App(name=reader.program, **reader.section("app")), sync=Sync(**reader.section("sync")),
        reload=Reload(**reader.section("reload")), target=target, targets=targets,
        detected=found, origins=dict(reader.origins))


def _place_in_order(problem: WorkstationError) -> tuple[bool, int]:
    """The file's problems by line, then those of variables and flags."""
    return problem.line is None, problem.line or 0


def _fill_from_detection(reader: Reader, found: Detected | None) -> None:
    if found is None:
        return
    for key, value in (("app.command", found.command or None), ("app.port", found.port),
                       ("app.health", found.health), ("reload.ready", found.ready)):
        if key not in reader.values and value is not None:
            reader.values[key] = value
            reader.origins[key] = Origin("detection", found.why)
