"""Which part of a batch that does not fit waits, so that the rest of it can go live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hyperbox_agent.core.entries import Change, Kind

BYTES = "bytes"
FILES = "files"


@dataclass(frozen=True, slots=True)
class Shortage:
    """What a filesystem lacked for a batch."""

    filesystem: str
    need: int
    have: int
    unit: str
    """``BYTES``, ``FILES``, or "" where it is not a matter of how much (mounted read-only)."""

    def as_json(self) -> dict[str, Any]:
        """As it stands in an outcome's facts."""
        return {"filesystem": self.filesystem, "need": self.need, "have": self.have,
                "unit": self.unit}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Shortage | None:
        """What an outcome's facts say of it; None: nothing was short."""
        space = facts.get("space")
        if not isinstance(space, dict):
            return None
        return cls(str(space.get("filesystem", "")), int(space.get("need", 0)),
                   int(space.get("have", 0)), str(space.get("unit", "")))


def left_out(changes: Iterable[Change], shortage: Shortage) -> tuple[str, ...]:
    """The paths without which the batch should fit; empty where leaving some out is no help.

    For want of bytes the biggest files wait, as few as will do. For want of inodes all that is new
    waits: which of many small files could be done without can't be told.
    """
    if shortage.unit == FILES:
        return tuple(change.path for change in changes if change.old is None)
    if shortage.unit != BYTES:
        return ()
    over = shortage.need - shortage.have
    waiting = []
    for size, path in sorted(_sizes(changes), reverse=True):
        if over <= 0:
            break
        waiting.append(path)
        over -= size
    return tuple(sorted(waiting))


def _sizes(changes: Iterable[Change]) -> Iterable[tuple[int, str]]:
    for change in changes:
        new = change.new
        if new is not None and new.kind is Kind.FILE and new.size:
            yield new.size, change.path
