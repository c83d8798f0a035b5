"""Generations are kept, in order, by one writer and for any number of readers."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

import hyperbox_devcontainer.history
from hyperbox_devcontainer.errors import HistoryError
from hyperbox_devcontainer.history import History, read_history


def event(number: int, verdict: str = "committed", target: str = "process",
          **more: Any) -> dict[str, Any]:
    return {"event": "generation", "target": target, "number": number, "verdict": verdict, **more}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "history.sqlite")


def test_the_newest_comes_first_and_events_come_back_as_they_were(path: str) -> None:
    history = History(path)
    events = [event(1, ms={"total": 1.5}), event(2, "rolled_back", error={"path": "b\udcff.py"}),
              event(3, "superseded")]
    for one in events:
        history.append(one)
    assert history.latest(10) == events[::-1]
    assert history.latest(2) == [events[2], events[1]]
    assert read_history(path, 10) == events[::-1]
    assert history.last_number() == 3
    history.close()


def test_a_project_without_history_has_none(path: str) -> None:
    assert read_history(path, 10) == []
    assert not Path(path).exists()
    history = History(path)
    assert history.last_number() == 0
    history.close()
    assert read_history(path, 10) == []


def test_targets_can_be_told_apart(path: str) -> None:
    history = History(path)
    history.append(event(1, target="a"))
    history.append(event(2, target="b"))
    assert [one["number"] for one in history.latest(9, "a")] == [1]
    assert [one["number"] for one in read_history(path, 9, "b")] == [2]
    history.close()


def test_the_file_and_its_side_files_are_the_owners_alone(path: str) -> None:
    history = History(path)
    history.append(event(1))
    for name in os.listdir(os.path.dirname(path)):
        mode = os.stat(os.path.join(os.path.dirname(path), name)).st_mode
        assert stat.S_IMODE(mode) == 0o600, name
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    history.close()


def test_pruning_keeps_the_newest(path: str) -> None:
    history = History(path)
    for number in range(1, 31):
        history.append(event(number))
    assert history.prune(keep=10) == 20
    assert [one["number"] for one in history.latest(99)] == list(range(30, 20, -1))
    assert history.prune(keep=10) == 0
    history.close()


def test_readers_see_whole_rows_while_the_session_writes(path: str) -> None:
    history = History(path)
    history.append(event(0))
    faults: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                numbers = [one["number"] for one in read_history(path, 50)]
                assert numbers == list(range(numbers[0], numbers[0] - len(numbers), -1))
        except Exception as error:  # noqa: BLE001 -- handed to the test
            faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 300):
        history.append(event(number))
    done.set()
    for reader in readers:
        reader.join()
    assert not faults
    history.close()


@pytest.mark.parametrize("damage", ["text", "middle", "short"])
def test_a_damaged_file_is_moved_aside_by_the_writer_and_kept(path: str, damage: str) -> None:
    history = History(path)
    for number in range(200):
        history.append(event(number, why="x" * 200))
    history.close()
    whole = Path(path).read_bytes()
    broken = {"text": b"no database at all, sorry. " * 99, "short": whole[:5000],
              "middle": whole[:4096] + os.urandom(8192) + whole[12288:]}[damage]
    Path(path).write_bytes(broken)
    again = History(path)
    again.append(event(1))
    for _ in range(3):
        again.append(event(2))
    if again.moved_aside is not None:
        assert Path(again.moved_aside).stat().st_size >= len(broken)
        assert [one["number"] for one in again.latest(9)] == [2, 2, 2, 1]
    else:
        assert damage == "middle"  # SQLite went on: what it read was not what is broken
    again.close()


def test_a_reader_leaves_a_damaged_file_as_it_is(path: str) -> None:
    Path(path).parent.mkdir()
    Path(path).write_bytes(b"no database at all, sorry. " * 99)
    with pytest.raises(HistoryError) as caught:
        read_history(path, 10)
    assert caught.value.file == path
    assert Path(path).read_bytes().startswith(b"no database")


def test_a_newer_file_is_refused_and_not_touched(path: str) -> None:
    History(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(HistoryError, match="newer version"):
        History(path)


def test_a_link_in_the_files_place_is_not_followed(path: str, tmp_path: Path) -> None:
    Path(path).parent.mkdir(mode=0o700)
    Path(path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises((HistoryError, OSError)):
        History(path)
    assert not (tmp_path / "elsewhere").exists()


def test_the_oldest_go_by_themselves(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hyperbox_devcontainer.history, "PRUNE_EVERY", 10)
    monkeypatch.setattr(History.prune, "__defaults__", (20,))
    history = History(path)
    for number in range(1, 101):
        history.append(event(number))
    assert [one["number"] for one in history.latest(1000)] == list(range(100, 80, -1))
    assert history.last_number() == 100
    history.close()
