"""What the archive of a program that runs in place holds as its generations."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.entries import Manifest
from hyperbox_agent.core.ignore import IgnoreOptions
from hyperbox_agent.link.connection import Reply
from hyperbox_agent.link.messages import Configured
from hyperbox_agent.watch.choose import choose_watcher
from hyperbox_agent.watch.source import Source
from hyperbox_agent.watch.tree import SourceTree
from hyperbox_devcontainer.session.archived import (
    ArchiveBase,
    forget_unfinished,
    ignored_entries,
)
from hyperbox_devcontainer.session.options import SessionOptions

NEW = Configured(False, 0, "known")


class Target:
    """The link to an agent that tells where instances run: first the one that answers."""

    def __init__(self, *roots: str) -> None:
        self.roots = list(roots)

    def handle(self, op: str, handler: Any) -> None:
        pass

    async def call(self, op: str, body: Any, *, timeout: float) -> Reply:
        assert op == "status"
        return Reply({"roots": self.roots})


class Place:
    """A source, and the base of a session that runs it in place."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "p"
        self.root.mkdir()
        self.write("a", "1")
        self.write("b", "1")
        tree = SourceTree(str(self.root), options=IgnoreOptions(), cache_file=None)
        self.source = Source(
            tree, lambda sink: choose_watcher(str(self.root), sink), SystemClock())
        options = SessionOptions(
            project="p", root=str(self.root), target="t", kind="process", mode="in-place",
            home=str(folder), tree=str(self.root), state_dir=str(folder / "state"))
        self.base = ArchiveBase(options, self.source, SystemClock())

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def save(self, name: str, text: str) -> None:
        """Write, and have it seen."""
        self.write(name, text)
        self.source.sync()

    def commit(self, number: int, changes: Any = None) -> None:
        """All that is dirty goes live, or ``changes``."""
        made = self.source.changes() if changes is None else changes
        self.source.accept(made)
        self.base.committed(number, made)

    def kept(self, number: int) -> Manifest:
        return self.base._archive.manifest(number)


@pytest.fixture
async def place(tmp_path: Path) -> Any:
    made = Place(tmp_path)
    await made.source.open()
    yield made
    made.source.close()


async def test_what_is_saved_during_the_first_start_is_of_the_next_generation(
        place: Place) -> None:
    started = dict(place.source.tree.manifest)
    assert place.base.converge(NEW, place.source) == ()
    place.save("a", "22")
    place.commit(1, ())
    assert place.kept(1) == started
    assert [change.path for change in place.source.changes()] == ["a"]
    place.commit(2)
    assert place.kept(1) == started
    assert place.kept(2) == place.source.tree.manifest


async def test_what_follows_a_failed_start_has_all_of_what_was_to_be_started(
        place: Place) -> None:
    place.base.converge(NEW, place.source)
    place.commit(1, ())
    place.write("c", "between two sessions")
    place.source.sync()
    assert place.base.converge(NEW, place.source) == ()  # and this start fails
    place.save("a", "333")
    place.commit(3)
    assert place.kept(3) == place.source.tree.manifest
    assert "c" not in place.kept(1)


async def test_a_generation_after_a_rollback_builds_on_what_was_gone_back_to(
        place: Place) -> None:
    place.base.converge(NEW, place.source)
    place.commit(1, ())
    place.save("a", "22")
    place.commit(2)
    assert await place.base.rolled_back(1, place.source) == ["a"]
    place.save("a", "1")
    place.save("b", "333")
    assert [change.path for change in place.source.changes()] == ["b"]
    place.commit(3)
    assert {path: entry.digest for path, entry in place.kept(3).items()} == {
        path: entry.digest for path, entry in place.source.tree.manifest.items()}


async def two_generations(place: Place) -> None:
    place.base.converge(NEW, place.source)
    place.commit(1, ())
    while await place.base._copy_some():
        pass
    place.save("a", "22")
    place.commit(2)


async def test_a_generation_that_was_saved_over_at_once_can_still_be_gone_back_to(
        place: Place) -> None:
    await two_generations(place)
    place.write("a", "333")  # before anything else could be copied
    root = Path((await place.base.prepare_rollback(2))["root"])
    assert ((root / "a").read_text(), (root / "b").read_text()) == ("22", "1")


async def test_a_tree_that_something_runs_from_is_not_built_anew(place: Place) -> None:
    await two_generations(place)
    first = (await place.base.prepare_rollback(1))["root"]
    (Path(first) / "b").write_text("written by what runs there")
    second = (await place.base.prepare_rollback(1))["root"]
    assert await place.base.locate(1) not in (first, second, None)
    assert (Path(first) / "b").read_text() == "written by what runs there"
    assert (Path(second) / "b").read_text() == "1"


async def test_what_was_built_goes_as_soon_as_nothing_runs_from_it(place: Place) -> None:
    await two_generations(place)
    target: Any = Target(str(place.root))
    await place.base.learn(NEW, target)
    trees = [Path((await place.base.prepare_rollback(1))["root"]) for _ in range(3)]
    target.roots = [str(trees[2]), str(trees[1])]
    assert await place.base.tidy(), "one is still to come to its end"
    assert [tree.is_dir() for tree in trees] == [False, True, True]
    target.roots = [str(trees[2])]
    place.base._starting.remove(str(trees[1]))
    assert not await place.base.tidy()
    assert [tree.is_dir() for tree in trees] == [False, False, True]
    place.save("a", "333")
    place.commit(3)
    target.roots = [str(place.root), str(trees[2])]
    assert await place.base.tidy(), "it lets its last requests end"
    target.roots = [str(place.root)]
    assert not await place.base.tidy()
    assert not trees[2].exists()
    built = await place.base.locate(1)
    assert built is not None
    await place.base.ended()
    assert not Path(built).exists()


async def test_what_is_not_kept_is_the_source_only_while_that_is_what_is_live(
        place: Place) -> None:
    place.base.converge(NEW, place.source)
    assert await place.base.locate(1) == str(place.root)
    place.save("a", "22")
    assert await place.base.locate(1) is None


async def test_a_generation_can_be_recorded_while_one_is_built(
        place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await two_generations(place)
    building, going_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    check_out = place.base._archive.checkout

    def slowly(*args: Any) -> Any:
        loop.call_soon_threadsafe(building.set)
        assert going_on.wait(20)
        return check_out(*args)

    monkeypatch.setattr(place.base._archive, "checkout", slowly)
    rolling = asyncio.ensure_future(place.base.prepare_rollback(1))
    await building.wait()
    copying = asyncio.ensure_future(place.base._copy_some())
    place.save("b", "333")
    place.commit(3)
    await asyncio.sleep(0)
    assert not copying.done(), "its contents wait until the store is free"
    rolling.cancel()
    await asyncio.sleep(0)
    assert not copying.done(), "a thread can't be taken back"
    going_on.set()
    await copying
    assert place.kept(3) == place.source.tree.manifest


def test_a_folder_that_is_gone_has_no_ignored_entries(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("")
    (tmp_path / ".git").mkdir()
    assert ignored_entries(str(tmp_path), (), ("", "gone")) == {".env": str(tmp_path / ".env")}


def test_what_a_killed_session_had_begun_is_forgotten(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    begun = ["archive/record.new", f"archive/store/tmp/{gone.pid}.3", "trees/4.part/a",
             f"trees/4.old-{gone.pid}/a", "trees/4-2.part/a"]
    for path in (*begun, "trees/4-1/a", "archive/store/ab/cd"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    forget_unfinished(str(tmp_path))
    forget_unfinished(str(tmp_path / "nothing"))
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"trees/4-1/a", "archive/store/ab/cd"}
