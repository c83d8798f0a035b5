"""B02: one bad link stops nothing; what stays inside is carried as a link."""

from __future__ import annotations

import os
from pathlib import Path

from journey import Project

LINKS = {"env/lib/abs": "/usr/lib/python3/abc.py", "env/up": "../../../outside",
         "env/dangling": "nowhere", "a/loop": ".."}


def test_b02_links_that_leave_the_root(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror")
    for folder in ("env/lib", "a"):
        (project.root / folder).mkdir(parents=True)
    for path, text in LINKS.items():
        (project.root / path).symlink_to(text)
    project.write("ok.py", "1")
    with project.up() as up:
        assert (project.tree / "ok.py").read_text() == "1"
        assert os.readlink(project.tree / "env/dangling") == "nowhere"
        assert os.readlink(project.tree / "a/loop") == ".."
        assert not os.path.lexists(project.tree / "env/lib/abs")
        assert not os.path.lexists(project.tree / "env/up")
        project.write("ok.py", "2")
        up.wait_generation(paths=["ok.py"])
        assert (project.tree / "ok.py").read_text() == "2"
        named = [problem["path"] for problem in project.target()["problems"]]
        assert sorted(named) == ["env/lib/abs", "env/up"]
        # A new one, beside an edit: the edit arrives in one generation, the link is named.
        mark = up.mark()
        (project.root / "a/out").symlink_to("/etc")
        project.write("ok.py", "3")
        up.wait_generation(paths=["ok.py"], after=mark)
        assert sorted(p["path"] for p in project.target()["problems"]) == [
            "a/out", "env/lib/abs", "env/up"]
        assert not os.path.lexists(project.tree / "a/out")
