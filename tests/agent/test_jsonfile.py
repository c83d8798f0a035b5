"""Small JSON files: replaced as one unit, however they are replaced."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hyperbox_agent.jsonfile import NEW, read_json, write_json, write_json_often
from hyperbox_agent.store.ops import Ops

Write = Callable[[str, Mapping[str, object]], None]


@pytest.mark.parametrize("write", [write_json, write_json_often])
def test_what_was_written_last_is_read_longer_or_shorter(tmp_path: Path, write: Write) -> None:
    path = str(tmp_path / "it.json")
    for length in (10, 5_000, 0, 300, 1):
        write(path, {"text": "x" * length})
        assert read_json(path) == {"text": "x" * length}


@pytest.mark.parametrize("more", [1, 2, 3])
def test_a_reader_that_has_it_open_sees_the_one_it_opened(tmp_path: Path, more: int) -> None:
    path = str(tmp_path / "it.json")
    write_json_often(path, {"number": 0})
    with open(path, encoding="utf-8") as opened:
        for number in range(more):
            write_json_often(path, {"number": 1 + number})
        assert opened.read() == '{"number": 0}'
    assert os.listdir(tmp_path) == ["it.json"]


def test_the_garbage_of_a_killed_writer_is_written_over(tmp_path: Path) -> None:
    path = str(tmp_path / "it.json")
    write_json_often(path, {"number": 1})
    Path(path + NEW).write_text('{"number": 2, "more": "and m')
    assert read_json(path) == {"number": 1}
    write_json_often(path, {"number": 3})
    assert read_json(path) == {"number": 3}


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = str(tmp_path / "it.json")
    write_json_often(path, {"number": 1})
    Path(path + NEW).unlink(missing_ok=True)
    os.mkdir(path + NEW)
    with pytest.raises(OSError, match="directory"):
        write_json_often(path, {"number": 2})
    assert read_json(path) == {"number": 1}


def test_where_the_kernel_can_not_exchange_it_is_replaced(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "it.json")
    for code in (errno.ENOSYS, errno.EINVAL):
        def fails(*_: object, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(Ops, "exchange", fails)
        for number in (1, 2):
            write_json_often(path, {"number": number})
            assert read_json(path) == {"number": number}
            assert not os.path.exists(path + NEW)
