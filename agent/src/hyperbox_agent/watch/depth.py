"""How much has to be looked at for a hint."""

from __future__ import annotations

from collections.abc import Container, Iterable
from enum import IntEnum

from hyperbox_agent.watch.base import Hint, What


class Depth(IntEnum):
    """From little to much."""

    ENTRY = 0
    LISTING = 1
    """What lies directly in a folder, and all below what is new in it."""
    BELOW = 2


def depths(hints: Iterable[Hint]) -> dict[str, Depth]:
    """How deep to look at each hinted path."""
    wanted: dict[str, Depth] = {}
    for hint in hints:
        depth = _depth(hint)
        wanted[hint.path] = max(depth, wanted.get(hint.path, depth))
    return wanted


def _depth(hint: Hint) -> Depth:
    if hint.what in (What.LOST, What.ROOT_BACK, What.ROOT_GONE):
        return Depth.BELOW
    if not hint.is_dir:
        return Depth.ENTRY
    # A folder that came may have taken another one's place under the same name.
    return Depth.BELOW if hint.what in (What.CREATED, What.MOVED_IN) else Depth.LISTING


def below_any(path: str, tops: Container[str]) -> bool:
    """Whether one of ``tops`` is a folder above ``path``."""
    while path:
        path = path.rpartition("/")[0]
        if path in tops:
            return True
    return False
