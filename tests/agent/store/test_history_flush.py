"""When records reach the disk: after a save has gone live, never on its way."""

from __future__ import annotations

import os
from pathlib import Path

from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.store.history import History
from hyperbox_agent.store.ops import Ops
from hyperbox_agent.store.record import Record


class FlushedOps(Ops):
    def __init__(self) -> None:
        self.flushed: list[str] = []

    def fdatasync(self, fd: int) -> None:  # type: ignore[override]
        self.flushed.append(os.readlink(f"/proc/self/fd/{fd}"))


def test_a_record_is_flushed_when_asked_and_a_snapshot_before_it_has_its_name(
        tmp_path: Path) -> None:
    ops = FlushedOps()
    history = History(str(tmp_path), ops)
    change = Change("a", None, Entry("a", Kind.FILE, size=1, digest=b"1" * 32))
    record = Record(1, 1, 0, (change,))
    history.write(record, str(tmp_path / "new"))
    history.accept(record, str(tmp_path / "new"))
    assert ops.flushed == []
    history.flush(1)
    assert ops.flushed == [history.path_of(1)]
    history.snapshot()
    assert ops.flushed[1:] == [str(tmp_path / "snapshot.new")]
    history.flush(7)  # forgotten meanwhile
