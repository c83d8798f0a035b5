"""Names that some file systems can't tell apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from hyperbox_agent.watch.base import Problem


def case_collisions(paths: Iterable[str]) -> tuple[Problem, ...]:
    """Pairs that differ only in case or in how accents are composed; the first in order stays."""
    first: dict[str, str] = {}
    found = []
    for path in sorted(paths):
        other = first.setdefault(unicodedata.normalize("NFC", path.casefold()), path)
        if other != path:
            found.append(Problem(path, f"{other} and {path} are one name on a file system that"
                                 " folds case", "rename one of them, or ignore it"))
    return tuple(found)
