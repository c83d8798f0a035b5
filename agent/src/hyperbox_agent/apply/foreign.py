"""What stands in a tree though we did not put it there."""

from __future__ import annotations

import os
from collections.abc import Container

from hyperbox_agent.watch.ignorefiles import VENV_MARK


def find_foreign(root: str, known: Container[str], limit: int = 100) -> tuple[str, ...]:
    """Files below ``root`` that are not ``known``, ``limit`` at most; left out are compiled code
    and Python's environments, which are made in the tree."""
    found: list[str] = []
    for folder, folders, names in os.walk(root):
        base = os.path.relpath(folder, root)
        if VENV_MARK in names and base != ".":
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = name if base == "." else f"{base}/{name}"
            if path not in known:
                found.append(path)
                if len(found) >= limit:
                    return tuple(found)
    return tuple(found)
