"""Where the homes of a project's targets are, noted by its sessions.

So ``status`` and ``down`` find what a lost session left, without a configuration. Part of the quick
verbs' start: imports stay few.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

HOMES = "homes"
"""The file in a project's folder: a JSON object a line, appended."""
LOCAL = "process"
"""The kind whose homes are on this machine; those of others can only be reached."""


@dataclass(frozen=True, slots=True)
class Home:
    """One target's home, and what reaching it takes."""

    target: str
    kind: str
    home: str
    """Absolute path on the target."""


def remember_home(state_dir: str, home: Home) -> None:
    """Note it, once. Raises OSError."""
    if home in known_homes(state_dir):
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(os.path.join(state_dir, HOMES), flags, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(json.dumps(asdict(home)) + "\n")


def known_homes(state_dir: str) -> list[Home]:
    """All that were noted; what a full disk cut is left out."""
    try:
        with open(os.path.join(state_dir, HOMES), encoding="ascii", errors="replace") as file:
            found = [_home(line) for line in file]
    except OSError:
        return []
    return [home for home in found if home is not None]


def _home(line: str) -> Home | None:
    try:
        given = json.loads(line)
        values = [given["target"], given["kind"], given["home"]]
    except (ValueError, KeyError, TypeError):
        return None
    return Home(*values) if all(isinstance(value, str) for value in values) else None
