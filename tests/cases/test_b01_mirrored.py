"""B01 on a mirrored target: its tree is replaced by another one; the source loses nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from journey import Project, tree_of


@pytest.mark.parametrize("how", ["another", "empty", "missing"])
def test_b01_between_two_sessions(tmp_path: Path, how: str) -> None:
    project = Project(tmp_path, mode="mirror", extra='[sync]\npull = ["*.py", "*.txt"]\n')
    project.write("pkg/m.py", "M = 1\n")
    with project.up():
        pass
    before = tree_of(project.root)
    shutil.rmtree(project.tree)
    if how != "missing":
        project.tree.mkdir()
    if how == "another":
        (project.tree / "other.bin").write_text("of the image")
    with project.up():
        assert project.ask() == "v1"
        assert project.hb("flush").returncode == 0
        assert tree_of(project.root) == before
        there = tree_of(project.tree)
        assert {path: there.get(path) for path in before} == before
        messages = [problem["message"] for problem in project.target()["problems"]]
        assert any("target was recreated" in message for message in messages)
        if how == "another":
            assert (project.tree / "other.bin").read_text() == "of the image"
            assert any("other.bin" in message for message in messages)


@pytest.mark.parametrize("how", ["another", "missing"])
def test_b01_under_a_running_session(tmp_path: Path, how: str) -> None:
    project = Project(tmp_path, mode="mirror")
    with project.up() as up:
        before = tree_of(project.root)
        shutil.rmtree(project.tree)
        if how == "another":
            project.tree.mkdir()
            (project.tree / "other.txt").write_text("of the image")
        project.version("v2")
        refused = up.wait_generation("rolled_back")
        assert str(project.tree) in refused["error"]["message"]
        assert tree_of(project.root).keys() == before.keys()
        assert project.target()["pending"] >= 1
        if how == "another":
            assert [path.name for path in project.tree.iterdir()] == ["other.txt"]
