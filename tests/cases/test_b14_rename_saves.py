"""B14: an editor that saves by rename must not make the watcher blind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from journey import Project, eventually, same_trees


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, mode="mirror")


def moved_over(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    beside.rename(path)


def as_vim_does(path: Path, text: str) -> None:
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    path.write_text(text)
    backup.unlink()


stalls: list[float] = []
"""How long each save below took from its truncation to its text. Where a busy machine made that
longer than the session waits for, the empty file was rightly taken for a version."""


@pytest.fixture(autouse=True)
def no_stalls() -> None:
    stalls.clear()


def truncated_first(path: Path, text: str) -> None:
    began = time.monotonic()
    path.write_text("")
    time.sleep(0.005)
    path.write_text(text)
    stalls.append(time.monotonic() - began)


def as_quick_as_editors() -> bool:
    return max(stalls, default=0.0) < 0.015


@pytest.mark.parametrize("save", [moved_over, as_vim_does, truncated_first])
def test_b14_ten_saves_of_each_kind_arrive_ten_times(project: Project, save) -> None:
    (project.root / ".env.example").write_text("A=0\n")
    with project.up() as up:
        for number in range(10):
            mark = up.mark()
            save(project.root / "ver.py", f'V = "s{number}"\n')
            save(project.root / ".env.example", f"A={number}\n")
            up.wait_generation(after=mark)
            assert project.hb("flush").returncode == 0
            assert same_trees(project.root, project.tree)
            assert project.ask() == f"s{number}"
        back = [one for one in up.generations() if one["verdict"] == "rolled_back"]
        assert not back or not as_quick_as_editors()


def test_b14_a_truncated_state_is_never_shipped(project: Project) -> None:
    with project.up():
        seen: set[bytes] = set()
        for number in range(10):
            truncated_first(project.root / "ver.py", f'V = "s{number}"\n')
            target = project.tree / "ver.py"
            eventually(lambda n=number, t=target: (
                seen.add(t.read_bytes()) or t.read_text() == f'V = "s{n}"\n'))
        assert b"" not in seen or not as_quick_as_editors()
