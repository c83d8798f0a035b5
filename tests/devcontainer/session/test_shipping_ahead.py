"""A first sync: what the scan reads is on its way before the scan is over, and only once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from memory import MemoryProject, eventually

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.entries import Entry, Kind
from hyperbox_agent.errors import NoSpaceError
from hyperbox_agent.link.ahead import unpack_files
from hyperbox_agent.link.connection import Request
from hyperbox_agent.watch.tree import SourceTree
from hyperbox_devcontainer.session import ahead as ahead_module
from hyperbox_devcontainer.session.ahead import QUEUE, Ahead


def fill(project: MemoryProject, files: int = 60) -> None:
    for number in range(files):
        project.write(f"pkg{number % 7}/m{number}.py", f"N = {number}\n")


def first(project: MemoryProject) -> Mapping[str, Any]:
    return next(event for event in project.generations() if event.get("first"))


async def test_what_came_ahead_is_neither_asked_for_nor_read_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    fill(project)
    read: list[str] = []
    reading = SourceTree.read
    monkeypatch.setattr(SourceTree, "read", lambda tree, entry: (
        read.append(entry.path), reading(tree, entry))[1])
    async with project.up() as session:
        await session.flush(20)
        assert project.there() == project.here()
        assert "ahead" in project.agent.asked
        assert "missing" not in project.agent.asked
        assert read == []
        assert first(project)["files"] == len(project.here())
        assert first(project)["bytes"] > sum(map(len, project.here().values()))


async def test_a_file_that_changes_meanwhile_arrives_as_it_is_then(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    fill(project)
    connecting = SourceTree.loading

    def edited(tree: SourceTree) -> Any:
        yield from connecting(tree)
        project.write("pkg1/m1.py", "N = 'edited'\n")
        (project.root / "pkg2/m2.py").unlink()

    monkeypatch.setattr(SourceTree, "loading", edited)
    async with project.up() as session:
        await session.flush(20)
        await eventually(lambda: project.there() == project.here())
        assert project.there()["pkg1/m1.py"] == b"N = 'edited'\n"
        assert "pkg2/m2.py" not in project.there()


async def test_a_target_that_takes_nothing_ahead_is_filled_by_the_generation(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    fill(project)

    async def full(request: Request) -> None:
        await request.payload.read()
        raise NoSpaceError("no room just now", filesystem="/")

    project.agent.answer("ahead", full)
    async with project.up() as session:
        await session.flush(20)
        assert project.there() == project.here()
        assert [event["verdict"] for event in project.generations()] == ["committed"]
        assert project.problems() == []


async def test_a_target_that_lost_what_came_ahead_gets_it_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    fill(project)

    async def forgetful(request: Request) -> None:
        unpack_files(request.body, await request.payload.read())

    project.agent.answer("ahead", forgetful)
    async with project.up() as session:
        await session.flush(20)
        assert project.there() == project.here()


async def test_a_link_that_breaks_in_it_is_made_anew(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    fill(project)
    cuts = 0

    async def cut(request: Request) -> None:
        nonlocal cuts
        cuts += 1
        assert project.target is not None
        project.target.cut_streams()

    project.agent.answer("ahead", cut)
    async with project.up():
        await eventually(lambda: project.there() == project.here())
        assert cuts == 1


async def test_a_target_that_is_filled_is_sent_nothing_ahead(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    fill(project)
    async with project.up() as session:
        await session.flush(20)
    project.agent.asked.clear()
    async with project.up() as session:
        await session.flush(20)
        assert "ahead" not in project.agent.asked
        assert project.there() == project.here()


async def test_a_target_that_is_filled_leaves_nothing_of_it_in_memory(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    fill(project)
    async with project.up() as session:
        await session.flush(20)
    for cache in tmp_path.rglob("scan"):
        cache.unlink()  # all is read again
    made: list[Ahead] = []
    begin = Ahead.__init__
    monkeypatch.setattr(Ahead, "__init__", lambda ahead, *args, **options: (
        made.append(ahead), begin(ahead, *args, **options))[1])
    async with project.up() as session:
        await session.flush(20)
        assert [(ahead.begun, ahead._size, len(ahead._queue)) for ahead in made] == [(False, 0, 0)]


def file(number: int, size: int) -> tuple[Entry, bytes]:
    data = number.to_bytes(4, "big") * (size // 4)
    return Entry(f"f{number}", Kind.FILE, 0o644, size, hashlib.sha256(data).digest()), data


async def test_very_many_empty_files_are_something_to_wait_for() -> None:
    ahead = Ahead(SystemClock(), compress=False)
    for number in range(1_000_000):
        ahead.take(Entry(f"f{number}", Kind.FILE, 0o644, 0, number.to_bytes(32, "big")), b"")
        if ahead._size > QUEUE // 2:
            break
    assert number < 100_000
    await ahead.close()


async def test_the_scan_waits_for_room_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "PATIENCE", 0.2)
    ahead = Ahead(SystemClock(), compress=False)
    for number in range(20):
        ahead.take(*file(number, QUEUE // 10))
    assert QUEUE * 8 // 10 < ahead._size <= QUEUE, "no more is held than that"
    async with asyncio.timeout(20):
        await ahead.room()
        await ahead.room()
    assert await ahead.sent() == {}, "nobody came to take it"
    await ahead.close()
