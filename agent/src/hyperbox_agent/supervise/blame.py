"""Where an error came from, out of what a dying program wrote. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

_FRAME = re.compile(r'^ +(?:\| )?File "(?P<file>.+)", line (?P<line>\d+)')
_NOT_OURS = frozenset({".venv", "venv", "site-packages", "dist-packages", "node_modules", ".tox"})


@dataclass(frozen=True, slots=True)
class Blame:
    """The line of the project that an error came from, and the error."""

    message: str
    path: str | None = None
    """Relative to the root; None: no line of the project was involved."""
    line: int | None = None


def python_error(lines: Sequence[str], root: str) -> Blame | None:
    """The last Python error in a program's output: its last frame below ``root``."""
    ours: tuple[str, int] | None = None
    error: Blame | None = None
    inside = False
    for text in lines:
        frame = _FRAME.match(text)
        if text.lstrip(" |+").startswith("Traceback (most recent call last):"):
            inside, ours = True, None
        elif frame:
            # A SyntaxError's file stands in such a line too, without a traceback above it at times.
            inside = True
            path = _below(frame["file"], root)
            ours = (path, int(frame["line"])) if path is not None else ours
        elif inside and text and not text.startswith((" ", "\t", "|")):
            error = Blame(text.strip(), *(ours or (None, None)))
            inside = False
    return error


def _below(file: str, root: str) -> str | None:
    relative = os.path.relpath(file, root) if os.path.isabs(file) else os.path.normpath(file)
    parts = relative.split(os.sep)
    if parts[0] == ".." or file.startswith("<") or _NOT_OURS.intersection(parts):
        return None
    return relative
