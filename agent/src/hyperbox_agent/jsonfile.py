"""Small JSON files that are replaced as one unit, and whose damage is no error."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

NEW = ".new"


def read_json(path: str) -> object:
    """The JSON in a file; None where there is none or it is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            found: object = json.load(file)
            return found
    except (OSError, ValueError):
        return None


def write_json(path: str, data: Mapping[str, object]) -> None:
    """Replace a file as one unit: a reader, or the next agent, sees the old or the new one."""
    temporary = path + NEW  # one writer at a time: what a killed one left is written over
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(json.dumps(data))  # not json.dump: that goes without the C encoder
    os.replace(temporary, path)
