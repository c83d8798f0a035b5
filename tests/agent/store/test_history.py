"""The generations on disk: read back whole, or known to be damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import Files, WatchedOps, manifest_of, quick_folder, trees

from hyperbox_agent.core.plan import diff
from hyperbox_agent.errors import ApplyError, StoreError
from hyperbox_agent.store import record as records
from hyperbox_agent.store.born import birth
from hyperbox_agent.store.history import History
from hyperbox_agent.store.record import Record, stamp


def add(history: History, number: int, files: Files) -> Record:
    changes = diff(history.manifest, manifest_of(files))
    stamps = {change.path: number for change in changes if change.new is not None}
    record = Record(history.seq + 1, number, history.number, changes, stamps, {"moves": []})
    path = os.path.join(os.path.dirname(history.path_of(1)), "..", "new")
    history.write(record, path)
    history.accept(record, path)
    return record


def loaded(home: str) -> History:
    history = History(home, WatchedOps())
    history.load()
    return history


def state(history: History) -> tuple[object, ...]:
    return (history.manifest, history.stamps, history.seq, history.number, history.numbers())


@settings(max_examples=25)
@given(steps=st.lists(trees(6), min_size=1, max_size=6), compact_at=st.integers(0, 6),
       trim=st.integers(0, 6))
def test_what_is_loaded_is_what_was_there(steps: list[Files], compact_at: int, trim: int) -> None:
    with quick_folder() as home:
        history = loaded(home)
        for number, files in enumerate(steps, start=1):
            add(history, number, files)
            if number == compact_at:
                history.snapshot()
        history.trim(trim)
        assert state(loaded(home)) == state(history)
        for number in history.numbers():
            there = history.at(number)
            assert there.keys() == manifest_of(steps[number - 1]).keys()


def test_an_undone_record_was_never_there(tmp_path: Path) -> None:
    history = loaded(str(tmp_path))
    add(history, 1, {"a": b"1", "b": b"1"})
    before = (dict(history.manifest), dict(history.stamps), history.number, history.numbers())
    second = add(history, 2, {"a": b"2", "c": b"1"})
    history.drop_newest(second)
    assert (history.manifest, history.stamps, history.number, history.numbers()) == before
    again = loaded(str(tmp_path))
    assert (again.manifest, again.stamps, again.number, again.numbers()) == before
    with pytest.raises(ApplyError, match="not the newest"):
        again.drop_newest(second)


def test_a_generation_that_was_forgotten_is_named(tmp_path: Path) -> None:
    history = loaded(str(tmp_path))
    for number in range(1, 6):
        add(history, number, {"a": b"%d" % number})
    history.trim(4)
    assert history.numbers() == (3, 4, 5)
    with pytest.raises(ApplyError, match="generation 2 is not kept") as caught:
        history.at(2)
    assert caught.value.hint == "kept: 3, 4, 5"


@settings(max_examples=40)
@given(files=trees(6), at=st.integers(0, 5000), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_record_is_never_taken_for_a_whole_one(files: Files, at: int, value: int,
                                                         cut: bool) -> None:
    record = Record(3, 7, 6, diff({}, manifest_of(files)), {}, {"moves": [["place", "é\udce9"]]})
    data = records.encode(record)
    assert records.decode(data) == record
    broken = bytearray(data)
    broken[at % len(data)] ^= value
    damaged = bytes(broken[: at % len(data)]) if cut else bytes(broken)
    if damaged != data:
        with pytest.raises(StoreError) as caught:
            records.decode(damaged, "the file")
        assert caught.value.file == "the file"


def test_a_stamp_tells_a_file_that_was_replaced_or_written(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"1")

    def mark(file: Path) -> int:
        return stamp(os.stat(file), birth(str(file)))

    first = mark(path)
    assert mark(path) == first
    os.utime(path, ns=(1, 2))
    second = mark(path)
    path.rename(tmp_path / "g")
    assert mark(tmp_path / "g") == second
    path.write_bytes(b"1")
    os.utime(path, ns=(1, 2))
    assert len({first, second, mark(path)}) == 3
    assert stamp(os.stat(path), 1) != stamp(os.stat(path), 2), "all else may be the same"
