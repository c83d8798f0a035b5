"""B10: what was edited while the target was down is there before the program starts again."""

from __future__ import annotations

import os
import time
from pathlib import Path

from journey import Project, same_trees

LONG_AGO = time.mktime((2001, 1, 1, 0, 0, 0, 0, 0, -1))


def test_b10_content_not_time_decides(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror")
    project.write("gone.py", "x")
    project.write("sized.py", "A = 1\n")
    with project.up():
        project.version("v2")
        assert project.hb("flush").returncode == 0
    project.version("v3")
    project.write("old.py", "OLD = 1\n")
    (project.root / "gone.py").unlink()
    times = (project.root / "sized.py").stat()
    project.write("sized.py", "A = 2\n")
    os.utime(project.root / "sized.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(project.root / "old.py", (LONG_AGO, LONG_AGO))
    os.utime(project.root / "ver.py", (LONG_AGO, LONG_AGO))
    # Somebody was at work in the tree meanwhile, too.
    (project.tree / "app.py").write_text("broken(")
    with project.up() as up:
        assert project.ask() == "v3"
        assert same_trees(project.root, project.tree)
        first = up.wait(lambda event: bool(event.get("first")))
        assert set(first["paths"]) == {"app.py", "gone.py", "old.py", "sized.py", "ver.py"}
