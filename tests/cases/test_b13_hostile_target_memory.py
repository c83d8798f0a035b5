"""B13: each name that a target sends is judged; a hostile one writes nothing, its session ends."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest
from memory import PATIENCE, MemoryProject

from hyperbox_agent.core.entries import Entry, Kind
from hyperbox_devcontainer.errors import HostileTargetError

CONTENT = b"ssh-ed25519 evil"


def file(path: str) -> Entry:
    return Entry(path, Kind.FILE, 0o644, len(CONTENT), hashlib.sha256(CONTENT).digest())


def link(path: str, target: str) -> Entry:
    return Entry(path, Kind.LINK, 0o777, len(target), hashlib.sha256(target.encode()).digest(),
                 target)


HOSTILE = {
    "parent": ([file("../evil")], ["../evil"]),
    "absolute": ([file("/etc/hyperbox-evil")], ["/etc/hyperbox-evil"]),
    "through": ([Entry("a", Kind.DIR), file("a/../../evil")], ["a/../../evil"]),
    "through a link": ([link("d", "/tmp"), file("d/evil")], ["d", "d/evil"]),
    "link upwards": ([link("d", "../x")], ["d"]),
    "git": ([Entry(".git", Kind.DIR), Entry(".git/hooks", Kind.DIR),
             file(".git/hooks/post-checkout")], [".git", ".git/hooks", ".git/hooks/post-checkout"]),
    "git in capitals": ([Entry("a", Kind.DIR), Entry("a/.GIT", Kind.DIR),
                         file("a/.GIT/config")], ["a/.GIT", "a/.GIT/config"]),
    "configuration": ([file("hyperbox.toml")], ["hyperbox.toml"]),
    "backslash": ([file("a\\b.py")], ["a\\b.py"]),
    "drive": ([file("C:x")], ["C:x"]),
    "device": ([file("aux.py")], ["aux.py"]),
    "dot": ([file("./x.py")], ["./x.py"]),
    "no folder": ([file("nowhere/x.py")], ["nowhere/x.py"]),
}


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
            for path in folder.rglob("*") if "state" not in path.relative_to(folder).parts}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("when", ["at the start", "later"])
async def test_b13_each_is_refused_and_the_session_ends(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, when: str) -> None:
    entries, refused = HOSTILE[name]
    project = MemoryProject(tmp_path, monkeypatch, sync='pull = ["*"]')
    (project.root / ".git" / "hooks").mkdir(parents=True)
    project.agent.store[hashlib.sha256(CONTENT).digest()] = CONTENT
    before = everything(tmp_path)
    if when == "at the start":
        project.agent.lie_written(entries)
        with pytest.raises(HostileTargetError, match="session ends"):
            async with project.up():
                pass
    else:
        async with project.up() as session:
            await session.flush(20)
            project.agent.lie_written(entries)
            await project.agent.tell("events", {"events": [{"event": "written"}]})
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(HostileTargetError, match="session ends"):
                    await session.wait()
    assert everything(tmp_path) == before
    named = [event for event in project.events
             if event["event"] == "problem" and "refused" in event["message"]]
    assert [event["path"] for event in named] == refused
    assert not any(os.path.lexists(path) for path in ("/etc/hyperbox-evil", "/tmp/evil"))


async def test_b13_what_was_not_asked_for_is_refused(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch, sync='pull = ["uv.lock"]')
    project.agent.lie_written([file("setup.py"), file("uv.lock")])
    with pytest.raises(HostileTargetError):
        async with project.up():
            pass
    assert not (project.root / "uv.lock").exists()
    assert not (project.root / "setup.py").exists()


async def test_b13_content_that_is_not_what_was_announced_is_not_written(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch, sync='pull = ["uv.lock"]')
    entry = file("uv.lock")
    project.agent.tree["uv.lock"] = entry
    project.agent.store[entry.digest] = b"something else"
    project.agent.marker = None
    project.agent.lie_written([entry])
    async with project.up() as session:
        await session.flush(20)
    assert not (project.root / "uv.lock").exists()


async def test_b13_a_link_in_the_source_is_not_written_through(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own link out of the project is no way out for a target."""
    outside = tmp_path / "outside"
    outside.mkdir()
    project = MemoryProject(tmp_path, monkeypatch, sync='pull = ["migrations/"]')
    (project.root / "migrations").symlink_to(outside)
    project.agent.store[hashlib.sha256(CONTENT).digest()] = CONTENT
    project.agent.lie_written([Entry("migrations", Kind.DIR), file("migrations/0001.py")])
    async with project.up() as session:
        await session.flush(20)
    assert list(outside.iterdir()) == []
    assert (project.root / "migrations").is_symlink()
