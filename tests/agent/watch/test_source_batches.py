"""The source: a real tree and a real watcher, what is handed out and what is held back."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import ClassVar

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.ignore import IgnoreOptions
from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Hint, Problem, What
from hyperbox_agent.watch.choose import choose_watcher
from hyperbox_agent.watch.gitlock import GitLock, git_dir
from hyperbox_agent.watch.source import BREATH, Batch, Source
from hyperbox_agent.watch.tree import SourceTree


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Source]:
    root = tmp_path / "p"
    (root / ".git").mkdir(parents=True)
    (root / "a.py").write_text("1\n")
    (root / "b.py").write_text("1\n")
    tree = SourceTree(str(root), options=IgnoreOptions(), cache_file=None)
    made = Source(tree, lambda sink: choose_watcher(str(root), sink), SystemClock(),
                  lock=GitLock(str(root)))
    await made.open()
    yield made
    made.close()


def write(source: Source, path: str, text: str) -> None:
    Path(source.tree.root, path).write_text(text)


async def batch(source: Source, *, settled: bool = True) -> Batch:
    while True:
        got = await asyncio.wait_for(source.next(), 30)
        if got.settled is settled:
            return got


def paths(got: Batch) -> list[str]:
    return [change.path for change in got.changes]


async def test_a_draft_comes_first_and_the_settled_batch_has_the_same_changes(source) -> None:
    write(source, "a.py", "2\n")
    draft = await batch(source, settled=False)
    whole = await batch(source)
    assert draft.changes == whole.changes
    assert paths(whole) == ["a.py"]
    assert whole.serial > draft.serial


class HandWatcher:
    """Says what it is told to say."""

    name = "hand"
    prompt = True
    problems: ClassVar[dict[str, Problem]] = {}

    def __init__(self, sink: Callable[[list[Hint]], None]) -> None:
        self.say = sink

    def start(self, dirs: Iterable[str]) -> None:
        list(dirs)

    def add(self, path: str) -> None: ...
    def forget(self, path: str) -> None: ...
    def drain(self) -> None: ...
    def catch_up(self) -> None: ...
    def close(self) -> None: ...


class HandClock:
    """Moves when it is moved."""

    def __init__(self) -> None:
        self.at = 100.0
        self._moved = asyncio.Event()

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        until = self.at + seconds
        while self.at < until:
            await self._moved.wait()

    def move(self, seconds: float) -> None:
        self.at += seconds
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


async def test_work_on_several_files_begins_when_they_pause(tmp_path: Path) -> None:
    clock, said = HandClock(), []
    tree = SourceTree(str(tmp_path), options=IgnoreOptions(), cache_file=None)
    source = Source(tree, lambda sink: said.append(HandWatcher(sink)) or said[0], clock)
    await source.open()

    async def after(path: str | None, seconds: float) -> Batch:
        clock.move(seconds)
        if path is not None:
            write(source, path, "2\n")
            said[0].say([Hint(path, What.WRITTEN, clock.now())])
        return await asyncio.wait_for(source.next(), 30)

    lone = await after("a.py", 0.0)
    at_once = await after("b.py", 0.010)
    paused = await after(None, BREATH)
    whole = await after(None, 0.060 - BREATH)
    assert (paths(lone), lone.settled, lone.calm) == (["a.py"], False, True)
    assert (paths(at_once), at_once.settled, at_once.calm) == (["a.py", "b.py"], False, False)
    assert (paused.changes, paused.settled, paused.calm) == (at_once.changes, False, True)
    assert (whole.changes, whole.settled, whole.calm) == (at_once.changes, True, True)
    source.close()


async def test_what_is_not_accepted_is_part_of_the_next_batch(source) -> None:
    write(source, "a.py", "2\n")
    await batch(source)
    write(source, "b.py", "2\n")
    second = await batch(source)
    assert paths(second) == ["a.py", "b.py"]
    source.accept(second.changes)
    assert source.pending == 0


async def test_an_edit_that_is_undone_leaves_nothing_to_do(source) -> None:
    write(source, "a.py", "2\n")
    await batch(source)
    write(source, "a.py", "1\n")
    undone = await batch(source)
    assert undone.changes == ()
    assert source.pending == 0


async def test_a_checkout_in_progress_is_waited_out(source) -> None:
    lock = Path(source.tree.root, ".git", "index.lock")
    lock.touch()
    write(source, "a.py", "2\n")
    waiting = asyncio.ensure_future(batch(source))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    write(source, "b.py", "2\n")
    lock.unlink()
    assert paths(await waiting) == ["a.py", "b.py"]


async def test_the_programs_own_writes_are_no_batch(source) -> None:
    source.own(["state.json"])
    write(source, "state.json", "{}")
    write(source, "a.py", "2\n")
    assert paths(await batch(source)) == ["a.py"]


async def test_a_word_that_comes_after_the_event_counts_too(source) -> None:
    write(source, "state.json", "{}")
    source.sync()
    source.own(["state.json"])
    write(source, "a.py", "2\n")
    assert paths(await batch(source)) == ["a.py"]


async def test_a_vanished_root_is_said_and_its_return_converges(source) -> None:
    root = Path(source.tree.root)
    root.rename(root.with_name("away"))
    with pytest.raises(WatchError, match="is gone"):
        while True:
            await asyncio.wait_for(source.next(), 30)
    shutil.copytree(root.with_name("away"), root)
    write(source, "a.py", "3\n")
    assert "a.py" in paths(await batch(source))


async def test_paused_means_collected_and_not_handed_out(source) -> None:
    source.pause()
    write(source, "a.py", "2\n")
    waiting = asyncio.ensure_future(batch(source))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    source.resume()
    assert paths(await waiting) == ["a.py"]


def test_the_real_git_directory_of_a_worktree_is_found(tmp_path: Path) -> None:
    real = tmp_path / "repo" / ".git" / "worktrees" / "wt"
    real.mkdir(parents=True)
    tree = tmp_path / "wt" / "inner"
    tree.mkdir(parents=True)
    (tmp_path / "wt" / ".git").write_text(f"gitdir: {real}\n")
    assert git_dir(str(tree)) == str(real)
    lock = GitLock(str(tree))
    assert not lock.held()
    (real / "index.lock").touch()
    assert lock.held()
    old = 1_000_000_000
    os.utime(real / "index.lock", (old, old))
    assert not lock.held()
