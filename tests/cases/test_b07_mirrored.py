"""B07: a rename that changes only the spelling, onto a target that folds names."""

from __future__ import annotations

from pathlib import Path

import pytest
from filesystems import exfat
from journey import Project, tree_of

pytestmark = pytest.mark.needs("root", "mount", "exfat")


def test_b07_case_only_renames(tmp_path: Path) -> None:
    with exfat(tmp_path / "mnt", tmp_path / "image") as mounted:
        project = Project(tmp_path, mode="mirror", tree=Path(mounted) / "T")
        project.write("Readme.py", "R = 1\n")
        for number in range(20):
            project.write(f"Sub/m{number}.py", f"N = {number}\n")
        with project.up():
            (project.root / "Readme.py").rename(project.root / "readme.py")
            (project.root / "Sub").rename(project.root / "sub")
            assert project.hb("flush").returncode == 0
            here = {path: what[2] for path, what in tree_of(project.root).items()}
            assert {path: what[2] for path, what in tree_of(project.tree).items()} == here
            before = tree_of(project.root)
            project.write("A.py", "big\n")
            project.write("a.py", "small\n")
            refused = project.hb("flush")
            assert refused.returncode == 3
            assert "A.py" in refused.stderr
            assert "a.py" in refused.stderr
            assert tree_of(project.root).items() >= before.items()
            (project.root / "a.py").unlink()
            assert project.hb("flush").returncode == 0
            assert (project.tree / "A.py").read_text() == "big\n"


def test_b07_two_names_that_are_one_are_named_before_the_first_byte(tmp_path: Path) -> None:
    with exfat(tmp_path / "mnt", tmp_path / "image") as mounted:
        project = Project(tmp_path, mode="mirror", tree=Path(mounted) / "T")
        project.write("A.py", "big\n")
        project.write("a.py", "small\n")
        with project.up(live=False) as up:
            refused = up.wait(lambda event: bool(event.get("first")))
            assert refused["verdict"] == "rolled_back"
            assert "'A.py' and 'a.py'" in refused["error"]["message"]
            assert not list(project.tree.iterdir())
            (project.root / "a.py").unlink()
            assert project.hb("flush").returncode == 0
            assert project.ask() == "v1"
            assert (project.tree / "A.py").read_text() == "big\n"
