"""B14: an editor's save by rename loses no watch, in the root as well as below it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from watching import Watching, put, text

pytestmark = pytest.mark.needs("inotify")

FILES = ["hyperbox.toml", ".env", "app.py", "pkg/mod.py"]


def by_rename(root: Path, name: str, content: str) -> None:
    put(root, name + ".new", content)
    (root / (name + ".new")).rename(root / name)


def as_vim_does(root: Path, name: str, content: str) -> None:
    (root / name).rename(root / (name + "~"))
    put(root, name, content)
    (root / (name + "~")).unlink()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("save", [by_rename, as_vim_does])
async def test_b14_ten_saves_are_ten_times_seen(tmp_path: Path, name: str, save) -> None:  # type: ignore[no-untyped-def]
    put(tmp_path, name, "start")
    async with Watching(tmp_path) as w:
        for i in range(10):
            save(tmp_path, name, f"save {i}")
            await w.until(lambda i=i: text(w.tree, name) == f"save {i}")  # type: ignore[misc]
        await w.equal()


@pytest.mark.parametrize("name", FILES)
async def test_b14_a_file_that_is_written_in_two_steps_is_never_seen_half(
        tmp_path: Path, name: str) -> None:
    put(tmp_path, name, "start")
    async with Watching(tmp_path) as w:
        for i in range(10):
            with open(tmp_path / name, "w") as handle:
                handle.flush()
                await asyncio.sleep(0.005)
                w.look()
                handle.write(f"save {i}")
            await w.until(lambda i=i: text(w.tree, name) == f"save {i}")  # type: ignore[misc]
        sizes = [change.new.size for change in w.changes if change.new and change.path == name]
        assert 0 not in sizes
        assert len(sizes) == 10
