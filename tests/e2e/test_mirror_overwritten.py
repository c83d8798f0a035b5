"""What a program overwrites in its own tree stands in the way of no save of that file."""

from __future__ import annotations

from pathlib import Path

import pytest
from journey import Project, same_trees

pytestmark = pytest.mark.needs("linux")


def test_a_save_of_a_file_that_the_program_overwrote_goes_live(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror", git=False)
    lines = [f"line {number} of many\n" for number in range(500)]
    project.write("long.txt", "".join(lines))
    project.write("other.txt", "".join(lines[:9]))
    with project.up() as up:
        assert project.hb("flush").returncode == 0
        (project.tree / "long.txt").write_text("written by the program\n")
        (project.tree / "other.txt").unlink()
        project.write("long.txt", "".join([*lines, "one more\n"]))
        assert project.hb("flush").returncode == 0
        (named,) = [one for one in project.target()["problems"] if one["path"] == "long.txt"]
        assert "held another long.txt" in named["message"]
        assert Path(named["hint"]).read_text() == "written by the program\n"
        (project.root / "other.txt").unlink()
        assert project.hb("flush").returncode == 0
        project.version("v2")
        assert project.hb("flush").returncode == 0
        assert project.ask() == "v2"
        assert same_trees(project.root, project.tree)
        assert not [event for event in up.generations() if event["verdict"] == "rolled_back"]
