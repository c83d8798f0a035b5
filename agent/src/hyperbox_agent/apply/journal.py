"""The journal: one record with its moves, at ``<home>/journal`` while they are carried out.

It is written and on the disk before it gets that name. The rename that gives it is the signal to
go: a crash before it leaves the tree as it was, one after it is rolled forward. The filesystem's
own log keeps that rename before all those that follow it, so no further flush is needed inside the
batch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from hyperbox_agent.apply.moves import Move
from hyperbox_agent.core.entries import Change
from hyperbox_agent.core.plan import inverse
from hyperbox_agent.errors import StoreError
from hyperbox_agent.store import record as records
from hyperbox_agent.store.history import History
from hyperbox_agent.store.ops import Ops
from hyperbox_agent.store.record import Record


class Journal:
    """The journal of one home. Methods raise OSError."""

    def __init__(self, home: str, history: History, ops: Ops) -> None:
        self.path = os.path.join(home, "journal")
        self._history = history
        self._ops = ops

    def is_open(self) -> bool:
        """Whether a batch was begun and not ended."""
        return os.path.lexists(self.path)

    def begin(self, prepared: str) -> None:
        """The record written at ``prepared`` is to be carried out from now on."""
        self._ops.rename(prepared, self.path)

    def end(self, record: Record) -> None:
        """All moves are done: the record is history, or, if it led back, is forgotten."""
        if not leads_back(record):
            self._history.accept(record, self.path)
            return
        if os.path.lexists(self._history.path_of(record.seq)):
            self._history.drop_newest(self._history.record(record.seq))
        self.remove()

    def remove(self) -> None:
        """Forget it."""
        with contextlib.suppress(FileNotFoundError):
            self._ops.unlink(self.path)

    def load(self) -> Record | None:
        """The record of a batch that was begun; None: there is none. Raises StoreError."""
        try:
            return records.read(self.path)
        except FileNotFoundError:
            return None


def forward(seq: int, number: int, before: int, changes: tuple[Change, ...],
            stamps: dict[str, int], moves: Sequence[Move]) -> Record:
    """The record of a batch."""
    return Record(seq, number, before, changes, stamps, _facts(moves, back=False))


def backward(record: Record, moves: Sequence[Move]) -> Record:
    """The record that undoes ``record`` by ``moves``."""
    return Record(record.seq, record.before, record.number, inverse(record.changes), {},
                  _facts(moves, back=True))


def leads_back(record: Record) -> bool:
    """Whether it undoes the record of the same seq."""
    return bool(record.facts.get("back"))


def moves_of(record: Record) -> tuple[Move, ...]:
    """Its moves. Raises StoreError."""
    try:
        return tuple(Move.from_json(item) for item in record.facts.get("moves", ()))
    except (ValueError, TypeError) as error:
        raise StoreError(f"the journal's moves are damaged: {error}") from error


def _facts(moves: Sequence[Move], *, back: bool) -> dict[str, Any]:
    return {"moves": [move.as_json() for move in moves], "back": back}
