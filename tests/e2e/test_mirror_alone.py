"""A mirrored program that must not overlap: its old version is back as soon as its tree is."""

from __future__ import annotations

from pathlib import Path

import pytest
from journey import Project

pytestmark = pytest.mark.needs("linux")


def test_a_broken_save_leaves_the_old_version_answering(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror", git=False, extra="[reload]\noverlap = false")
    with project.up() as up:
        project.version("v2")
        assert project.hb("flush").returncode == 0
        project.write("ver.py", "import nope\nV = 'v3'\n")
        assert project.hb("flush").returncode == 3
        assert project.ask() == "v2"
        refused = up.wait_generation("rolled_back")
        assert refused["serving"] is not None
        assert refused["error"]["path"] == "ver.py"
        target = project.target()
        assert (target["state"], target["error"]["path"]) == ("live", "ver.py")
        assert (project.tree / "ver.py").read_text() == 'V = "v2"\n'
        project.version("v4")
        assert project.hb("flush").returncode == 0
        assert project.ask() == "v4"
