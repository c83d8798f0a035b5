"""One suite for every watcher: what the seam promises, on real files."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from watching import MakeWatcher, Watching, inotify, put, text

from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Sink, Watcher, What
from hyperbox_agent.watch.polling import PollingWatcher
from hyperbox_agent.watch.pyinotify_watcher import PyinotifyWatcher
from hyperbox_agent.watch.watchfiles_watcher import WatchfilesWatcher


def polling(root: str, sink: Sink) -> Watcher:
    return PollingWatcher(root, sink, period=0.05)


def watchfiles(root: str, sink: Sink) -> Watcher:
    return WatchfilesWatcher(root, sink)


def pyinotify(root: str, sink: Sink) -> Watcher:
    return PyinotifyWatcher(root, sink)


WATCHERS = [
    pytest.param(inotify, id="inotify", marks=pytest.mark.needs("inotify")),
    pytest.param(watchfiles, id="watchfiles", marks=pytest.mark.needs("watchfiles")),
    pytest.param(pyinotify, id="pyinotify",
                 marks=pytest.mark.needs("inotify", "pyinotify", "asyncore")),
    pytest.param(polling, id="polling"),
]
every_watcher = pytest.mark.parametrize("make", WATCHERS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    put(folder, "app.py", "v0")
    put(folder, "pkg/mod.py", "v0")
    put(folder, "node_modules/lib/index.js", "v0")
    return folder


Step = Callable[[Path], None]


def write_in_place(root: Path) -> None:
    put(root, "app.py", "in place")


def save_by_rename(root: Path) -> None:
    put(root, "app.py.new", "renamed")
    (root / "app.py.new").rename(root / "app.py")


def save_with_backup(root: Path) -> None:
    (root / "pkg/mod.py").rename(root / "pkg/mod.py~")
    put(root, "pkg/mod.py", "as vim does")
    (root / "pkg/mod.py~").unlink()


def make_deep_folder(root: Path) -> None:
    put(root, "new/a/b/c/file", "deep")


def write_in_it(root: Path) -> None:
    put(root, "new/a/b/c/file", "deeper")
    put(root, "new/a/b/other", "x")


def move_folder(root: Path) -> None:
    (root / "new").rename(root / "pkg/moved")


def write_in_moved(root: Path) -> None:
    put(root, "pkg/moved/a/b/c/file", "moved and written")


def copy_tree(root: Path) -> None:
    shutil.copytree(root / "pkg", root / "copy")


def remove_folder(root: Path) -> None:
    shutil.rmtree(root / "pkg/moved")


def swap_folder(root: Path) -> None:
    (root / "copy").rename(root / "copy.old")
    put(root, "copy.new/only", "1")
    (root / "copy.new").rename(root / "copy")
    shutil.rmtree(root / "copy.old")


def write_in_swapped(root: Path) -> None:
    put(root, "copy/only", "22")


def link(root: Path) -> None:
    (root / "link").symlink_to("app.py")
    os.link(root / "app.py", root / "hard.py")


def change_mode(root: Path) -> None:
    (root / "app.py").chmod(0o755)


def file_to_folder(root: Path) -> None:
    (root / "hard.py").unlink()
    put(root, "hard.py/inside", "1")


def delete(root: Path) -> None:
    (root / "app.py").unlink()


STEPS: list[Step] = [
    write_in_place, save_by_rename, save_with_backup, make_deep_folder, write_in_it, move_folder,
    write_in_moved, copy_tree, remove_folder, swap_folder, write_in_swapped, link, change_mode,
    file_to_folder, delete]


async def check_watcher(make: MakeWatcher, root: Path) -> None:
    """Every kind of change is hinted soon enough for the tree to end as a new scan finds it."""
    async with Watching(root, make) as w:
        for step in STEPS:
            step(root)
            await w.equal()
        assert not w.watcher.problems
        assert not any(h.path.startswith("node_modules/") for h in w.history)


@every_watcher
async def test_every_kind_of_change_is_noticed(make: MakeWatcher, root: Path) -> None:
    await check_watcher(make, root)


@every_watcher
async def test_many_changes_at_once_are_all_noticed(make: MakeWatcher, root: Path) -> None:
    async with Watching(root, make) as w:
        for i in range(300):
            put(root, f"bulk{i % 7}/sub{i % 3}/f{i}", str(i))
        await w.equal()
        for i in range(300):
            put(root, f"bulk{i % 7}/sub{i % 3}/f{i}", f"again {i}")
        await w.equal()
        for i in range(7):
            shutil.rmtree(root / f"bulk{i}")
        await w.equal()


@every_watcher
async def test_a_vanished_root_is_said_and_its_return_too(make: MakeWatcher, root: Path) -> None:
    async with Watching(root, make) as w:
        root.rename(root.parent / "away")
        await w.hinted("", What.ROOT_GONE)
        assert "app.py" in w.tree.manifest
        put(root.parent / "away", "while-away", "1")
        (root.parent / "away").rename(root)
        await w.hinted("", What.ROOT_BACK)
        await w.equal()
        put(root, "pkg/mod.py", "after")
        await w.equal()
        assert text(w.tree, "pkg/mod.py") == "after"


@every_watcher
async def test_a_root_that_is_made_again_is_watched_again(make: MakeWatcher, root: Path) -> None:
    async with Watching(root, make) as w:
        shutil.rmtree(root)
        await w.hinted("", What.ROOT_GONE)
        root.mkdir()
        await asyncio.sleep(0)
        assert "app.py" in w.tree.manifest, "an empty root must not empty the tree"
        put(root, "other.py", "1")
        await w.hinted("", What.ROOT_BACK)
        await w.equal()
        put(root, "deep/er/file", "2")
        await w.equal()
        put(root, "deep/er/file", "three")
        await w.equal()


@every_watcher
async def test_another_root_in_its_place_is_noticed(make: MakeWatcher, root: Path) -> None:
    put(root.parent / "other", "lib/x.py", "other")
    async with Watching(root, make) as w:
        root.rename(root.parent / "old")
        (root.parent / "other").rename(root)
        await w.equal()
        put(root.parent / "old", "app.py", "not ours any more")
        put(root, "lib/x.py", "ours")
        await w.equal()
        assert "app.py" not in w.tree.manifest


@every_watcher
async def test_drain_hands_over_all_that_happened_before(make: MakeWatcher, root: Path) -> None:
    async with Watching(root, make) as w:
        put(root, "app.py", "before the flush")
        put(root, "pkg/new.py", "1")
        w.watcher.drain()
        w.look()
        assert not w.difference()


@every_watcher
async def test_nothing_is_hinted_when_nothing_happens(make: MakeWatcher, root: Path) -> None:
    async with Watching(root, make) as w:
        # What polling finds just written it says once more, until the file system's clock moved on.
        await asyncio.sleep(0.05)
        for _ in range(2):
            w.watcher.drain()
            w.look()
        seen = len(w.history)
        w.watcher.drain()
        await asyncio.sleep(0.1)
        assert w.history[seen:] == []


@every_watcher
async def test_folders_that_vanish_or_are_unknown_are_passed_over(
        make: MakeWatcher, root: Path) -> None:
    async with Watching(root, make) as w:
        w.watcher.add("never/was")
        w.watcher.forget("never/was")
        w.watcher.add("pkg")
        assert not any(hint.path in ("never/was", "pkg") for hint in w.history)
        w.watcher.forget("pkg")
        put(root, "app.py", "goes on")
        await w.until(lambda: text(w.tree, "app.py") == "goes on")


@every_watcher
async def test_a_watcher_of_no_root_says_so(make: MakeWatcher, tmp_path: Path) -> None:
    watcher = make(str(tmp_path / "none"), lambda hints: None)
    with pytest.raises(WatchError, match="gone"):
        watcher.start([""])
    watcher.close()


@every_watcher
async def test_a_closed_watcher_is_silent_and_leaves_nothing_open(
        make: MakeWatcher, root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with Watching(root, make) as w:
        pass
    w.watcher.close()
    put(root, "app.py", "unseen")
    await asyncio.sleep(0.1)
    assert not any(hint.path == "app.py" for hint in w.history)
    assert len(os.listdir("/proc/self/fd")) <= before
