"""What runs, written down so that the next agent can take it over: ``home/run/instances.json``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hyperbox_agent.jsonfile import NEW, read_json, write_json_often
from hyperbox_langpacks.base import Rung

FILE = "instances.json"
"""Their file in the folder of the home's sockets."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One process that an agent started."""

    serial: int
    number: int
    pid: int
    start: int
    mark: str
    root: str = ""
    rung: int = int(Rung.COLD)
    pool: str = ""
    control: str = ""
    backend: tuple[str, int] | None = None
    status: int | None = None
    """What its health request answered."""


_NAMES = tuple(one.name for one in fields(Record))


@dataclass(frozen=True, slots=True)
class Records:
    """All of them. ``helpers`` are workers and spares."""

    app: Mapping[str, Any]
    serving: int | None = None
    live: int | None = None
    """Serial of the instance that has the traffic."""
    last_serial: int = 0
    instances: tuple[Record, ...] = ()
    helpers: tuple[Record, ...] = ()


def save(path: str, records: Records) -> None:
    """Replace what is written down."""
    # Not dataclasses.asdict, which copies deeply: this is on the way of every save.
    write_json_often(path, {
        "version": _VERSION, "app": records.app, "serving": records.serving, "live": records.live,
        "last_serial": records.last_serial, "instances": [*map(_plain, records.instances)],
        "helpers": [*map(_plain, records.helpers)]})


def load(path: str) -> Records | None:
    """What a dead agent wrote down; None: nothing, or nothing that can be read."""
    data = read_json(path)
    if not isinstance(data, dict) or data.get("version") != _VERSION:
        return None
    try:
        return Records(data["app"], data["serving"], data["live"], int(data["last_serial"]),
                       tuple(map(_record, data["instances"])), tuple(map(_record, data["helpers"])))
    except (KeyError, TypeError, ValueError):
        return None


def remove(path: str) -> None:
    """Nothing runs any more."""
    for name in (path, path + NEW):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _plain(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _NAMES}


def _record(data: Mapping[str, Any]) -> Record:
    backend = data["backend"]
    return Record(int(data["serial"]), int(data["number"]), int(data["pid"]), int(data["start"]),
                  str(data["mark"]), str(data["root"]), int(data["rung"]), str(data["pool"]),
                  str(data["control"]), None if backend is None else (backend[0], int(backend[1])),
                  data["status"])
