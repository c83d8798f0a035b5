"""What only the inotify loop does: which events it takes, which it loses, which limits it meets."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from watching import Watching, put, text

from hyperbox_agent.watch.base import Hint, Problem, Sink, Watcher, What
from hyperbox_agent.watch.inotify import InotifyWatcher
from hyperbox_agent.watch.kernel import LibcInotify
from hyperbox_agent.watch.limits import instance_limit_problem, watch_limit_problem

pytestmark = pytest.mark.needs("inotify")


class FewWatches(LibcInotify):
    """The kernel with a watch limit of its own, that can be raised."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.held: set[int] = set()

    def add(self, fd: int, path: str, mask: int) -> int:
        wd = super().add(fd, path, mask)
        if wd not in self.held and len(self.held) >= self.limit:
            super().remove(fd, wd)
            raise OSError(errno.ENOSPC, "No space left on device")
        self.held.add(wd)
        return wd

    def remove(self, fd: int, wd: int) -> None:
        super().remove(fd, wd)
        self.held.discard(wd)


def told(w: Watching, path: str) -> list[What]:
    return [hint.what for hint in w.history if hint.path == path]


async def quiet(w: Watching) -> None:
    """All that happened until now has been looked at."""
    w.watcher.drain()
    while w.hints:
        w.look()


async def test_reading_wakes_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a/b", "x")
    (tmp_path / "l").symlink_to("a/b")
    async with Watching(tmp_path) as w:
        await quiet(w)
        seen = len(w.history)
        for _ in range(3):
            w.tree.rescan()
            w.tree.read(w.tree.manifest["a/b"])
            subprocess.run([sys.executable, "-c", f"open({str(tmp_path / 'a/b')!r}).read()"],
                           check=True)
            os.listdir(tmp_path / "a")
        await quiet(w)
        assert w.history[seen:] == []


async def test_a_file_is_told_when_it_is_closed_not_when_it_is_made(tmp_path: Path) -> None:
    async with Watching(tmp_path) as w:
        with open(tmp_path / "slow", "w") as handle:
            handle.write("half")
            os.fchmod(handle.fileno(), 0o600)
            await quiet(w)
            assert told(w, "slow") == []
        await quiet(w)
        assert What.WRITTEN in told(w, "slow")


async def test_names_that_come_without_a_write_are_told_at_once(tmp_path: Path) -> None:
    put(tmp_path, "a", "1")
    async with Watching(tmp_path) as w:
        os.link(tmp_path / "a", tmp_path / "hard")
        (tmp_path / "soft").symlink_to("a")
        (tmp_path / "folder").mkdir()
        await quiet(w)
        assert [told(w, name)[:1] for name in ("hard", "soft", "folder")] == [[What.CREATED]] * 3


async def test_a_file_that_was_made_nameless_is_told_when_it_lies_still(tmp_path: Path) -> None:
    async with Watching(tmp_path) as w:
        try:
            fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
        except OSError:
            pytest.skip("no O_TMPFILE on this file system")
        os.write(fd, b"whole")
        # With a folder's fd only does Python ask the kernel to follow the link.
        top = os.open("/", os.O_RDONLY)
        os.link(f"proc/self/fd/{fd}", tmp_path / "named", src_dir_fd=top, follow_symlinks=True)
        os.close(top)
        os.close(fd)
        await w.until(lambda: "named" in w.tree.manifest)
        assert text(w.tree, "named") == "whole"


async def test_writing_through_a_map_is_told_when_it_ends(tmp_path: Path) -> None:
    put(tmp_path, "mapped", "0" * 4096)
    async with Watching(tmp_path) as w:
        with open(tmp_path / "mapped", "r+b") as handle:
            view = mmap.mmap(handle.fileno(), 0)
        view[0:3] = b"new"
        view.close()
        await w.until(lambda: text(w.tree, "mapped").startswith("new"))


async def test_lost_events_are_said_and_nothing_is_lost_by_it(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip("the queue here is too long to be filled quickly")
    put(tmp_path, "a", "1")
    (tmp_path / "sub").mkdir()
    async with Watching(tmp_path) as w:
        for i in range(limit // 2 + 100):
            # Two kinds in turn: the kernel folds equal events that follow each other into one.
            os.chmod(tmp_path / "a", 0o644 if i % 2 else 0o600)
            os.utime(tmp_path / "sub")
        put(tmp_path, "after/the/flood", "1")
        put(tmp_path, "a", "2")
        await w.equal()
        assert ("", What.LOST) in {(hint.path, hint.what) for hint in w.history}
        put(tmp_path, "after/the/flood", "22")
        await w.equal()


async def test_ignored_folders_have_no_watch_and_cost_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node_modules").mkdir()
    put(tmp_path, "a", "1")
    async with Watching(tmp_path) as w:
        await quiet(w)
        seen = len(w.history)
        for i in range(2000):
            (tmp_path / "node_modules" / f"f{i}").write_bytes(b"x")
        looks: list[object] = []
        monkeypatch.setattr(w.tree, "refresh", looks.append)
        await quiet(w)
        assert w.history[seen:] == []
        assert not looks


async def test_folders_beyond_the_limit_are_polled_and_the_limit_is_said(tmp_path: Path) -> None:
    for i in range(12):
        put(tmp_path, f"d{i}/f", "1")
    kernel = FewWatches(5)

    def make(root: str, sink: Sink) -> Watcher:
        return InotifyWatcher(root, sink, calls=kernel, poll_period=0.05)

    async with Watching(tmp_path, make) as w:
        problem = w.watcher.problems["watches"]
        assert "13 folders need a watch" in problem.message
        assert "sysctl fs.inotify.max_user_watches=" in problem.hint
        for i in range(12):
            put(tmp_path, f"d{i}/f", f"changed {i}")
            put(tmp_path, f"d{i}/deep/er", "new")
        await w.equal()
        for i in range(12):
            put(tmp_path, f"d{i}/deep/er", "newer")
        await w.equal()
        kernel.limit = 1000
        await w.until(lambda: not w.watcher.problems)
        assert len(kernel.held) == len(set(w.tree.dirs()))
        for i in range(12):
            put(tmp_path, f"d{i}/deep/er", "newest")
        await w.equal()
        assert told(w, "d11/deep/er")[-1] is What.WRITTEN


class NoInstance(LibcInotify):
    """The kernel with no inotify instance left, until ``free``."""

    free = False

    def init(self) -> int:
        if not self.free:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().init()


async def test_without_an_instance_all_is_polled_until_there_is_one(tmp_path: Path) -> None:
    put(tmp_path, "d/f", "1")
    kernel = NoInstance()

    def make(root: str, sink: Sink) -> Watcher:
        return InotifyWatcher(root, sink, calls=kernel, poll_period=0.05)

    async with Watching(tmp_path, make) as w:
        assert "max_user_instances=" in w.watcher.problems["instances"].hint
        put(tmp_path, "d/f", "two")
        await w.equal()
        kernel.free = True
        await w.until(lambda: not w.watcher.problems)
        put(tmp_path, "d/f", "three")
        await w.equal()
        assert What.WRITTEN in told(w, "d/f")


def test_the_limits_problems_name_need_have_and_the_command() -> None:
    problem = watch_limit_problem(300, 101, 200)
    assert problem == Problem(
        "", "the watch limit is reached: 300 folders need a watch, have 200 for all programs of"
        " this user; 101 folders are looked at in turns instead",
        "sudo sysctl fs.inotify.max_user_watches=524288   (to keep it: echo"
        " fs.inotify.max_user_watches=524288 | sudo tee /etc/sysctl.d/60-inotify.conf)")
    assert "=2097152" in watch_limit_problem(600_000, 1, 524_288).hint
    assert "have 1 " in instance_limit_problem(1).message


async def test_a_folder_renamed_inside_is_told_under_its_new_name(tmp_path: Path) -> None:
    put(tmp_path, "old/in/f", "1")
    async with Watching(tmp_path) as w:
        (tmp_path / "old").rename(tmp_path / "new")
        put(tmp_path, "new/in/f", "two")
        await w.equal()
        await quiet(w)
        seen = len(w.history)
        put(tmp_path, "new/in/f", "three")
        await w.equal()
        assert {hint.path for hint in w.history[seen:]} <= {"new/in/f", "new", "new/in"}
        assert "new/in/f" in {hint.path for hint in w.history[seen:]}


async def test_folders_that_exchange_their_names_are_told_apart(tmp_path: Path) -> None:
    put(tmp_path, "a/f", "from a")
    put(tmp_path, "b/f", "from b")
    async with Watching(tmp_path) as w:
        (tmp_path / "a").rename(tmp_path / "x")
        (tmp_path / "b").rename(tmp_path / "a")
        (tmp_path / "x").rename(tmp_path / "b")
        await w.equal()
        put(tmp_path, "a/f", "a again")
        await w.equal()
        put(tmp_path, "b/f", "b again")
        await w.equal()
        assert (text(w.tree, "a/f"), text(w.tree, "b/f")) == ("a again", "b again")


@pytest.mark.needs("mount")
async def test_an_unmounted_root_empties_nothing(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
    mounted = True
    try:
        put(root, "a/f", "on the disk")
        async with Watching(root) as w:
            subprocess.run(["umount", "-l", root], check=True)
            mounted = False
            await w.hinted("", What.ROOT_GONE)
            assert "a/f" in w.tree.manifest
            subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
            mounted = True
            put(root, "a/g", "another disk")
            await w.hinted("", What.ROOT_BACK)
            await w.equal()
    finally:
        if mounted:
            subprocess.run(["umount", "-l", root], check=True)


async def test_a_folder_above_the_root_that_moves_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "up/per/project"
    put(root, "a", "1")
    async with Watching(root) as w:
        (tmp_path / "up").rename(tmp_path / "down")
        await w.hinted("", What.ROOT_GONE)
        (tmp_path / "down").rename(tmp_path / "up")
        await w.hinted("", What.ROOT_BACK)
        put(root, "a", "two")
        await w.equal()


async def test_hints_carry_the_time_of_the_loops_clock(tmp_path: Path) -> None:
    async with Watching(tmp_path) as w:
        before = time.monotonic()
        put(tmp_path, "a", "1")
        await w.equal()
        hint: Hint = w.history[-1]
        assert before <= hint.at <= time.monotonic()
        assert asyncio.get_running_loop().time() == pytest.approx(time.monotonic(), abs=1.0)
