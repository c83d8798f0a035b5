"""What the archive of a program that runs in place holds as its generations."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.entries import Manifest
from hyperbox_agent.core.ignore import IgnoreOptions
from hyperbox_agent.link.messages import Configured
from hyperbox_agent.watch.choose import choose_watcher
from hyperbox_agent.watch.source import Source
from hyperbox_agent.watch.tree import SourceTree
from hyperbox_devcontainer.session.archived import ArchiveBase, forget_unfinished
from hyperbox_devcontainer.session.options import SessionOptions

NEW = Configured(False, 0, "known")


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
    made.source.open()
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


def test_what_a_killed_session_had_begun_is_forgotten(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    begun = ["archive/record.new", f"archive/store/tmp/{gone.pid}.3", "trees/4.part/a",
             f"trees/4.old-{gone.pid}/a"]
    for path in (*begun, "trees/4/a", "archive/store/ab/cd"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    forget_unfinished(str(tmp_path))
    forget_unfinished(str(tmp_path / "nothing"))
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"trees/4/a", "archive/store/ab/cd"}
