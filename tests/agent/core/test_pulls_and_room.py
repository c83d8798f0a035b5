from __future__ import annotations

import pytest

from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.pulls import PullRules
from hyperbox_agent.core.room import BYTES, FILES, Shortage, left_out


@pytest.mark.parametrize(("path", "wanted"), [
    ("uv.lock", True), ("sub/uv.lock", True), ("uv.lock.bak", False),
    ("migrations/0001.py", True), ("shop/migrations/deep/0002.py", True),
    ("migrations/__pycache__/x.pyc", False), ("migrations/a.py~", False),
    ("migrations/kept.sql", False), ("only/here.txt", True), ("x/only/here.txt", False),
    (".git/migrations/x", False), ("migrations/.git/config", False), ("app.py", False),
])
def test_patterns_are_read_as_git_does(path: str, wanted: bool) -> None:
    rules = PullRules(["uv.lock", "migrations/", "!*.sql", "/only/here.txt"])
    assert rules(path) is wanted


def test_what_is_never_pulled() -> None:
    rules = PullRules(["*"])
    assert rules("app.py")
    assert not rules("hyperbox.toml")
    assert not rules(".git", is_dir=True)
    assert not PullRules([])
    assert not PullRules([])("app.py")


def change(path: str, size: int, *, new: bool = True, kind: Kind = Kind.FILE) -> Change:
    entry = Entry(path, kind, size=size)
    return Change(path, None if new else Entry(path, kind), entry)


BATCH = (change("d", 0, kind=Kind.DIR), change("d/big", 900), change("d/bigger", 1000),
         change("small", 10, new=False), Change("gone", Entry("gone", Kind.FILE, size=5000), None))


@pytest.mark.parametrize(("need", "have", "waiting"), [
    (2000, 1500, ("d/bigger",)), (2000, 1000, ("d/bigger",)),
    (2000, 999, ("d/big", "d/bigger")), (2000, 0, ("d/big", "d/bigger", "small")),
])
def test_the_biggest_files_wait_for_bytes(need: int, have: int, waiting: tuple[str, ...]) -> None:
    assert left_out(BATCH, Shortage("/mnt", need, have, BYTES)) == waiting


def test_what_is_new_waits_for_inodes() -> None:
    assert left_out(BATCH, Shortage("/mnt", 9, 1, FILES)) == ("d", "d/big", "d/bigger")


def test_nothing_waits_where_nothing_could_be_written() -> None:
    assert left_out(BATCH, Shortage("/mnt", 0, 0, "")) == ()


def test_facts_and_back() -> None:
    shortage = Shortage("/mnt", 2, 1, BYTES)
    assert Shortage.from_facts({"space": shortage.as_json()}) == shortage
    assert Shortage.from_facts({}) is None
