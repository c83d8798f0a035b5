"""B19: what ignore files hide is not shipped: the first generation is under 1 % of the folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from journey import Project


@pytest.mark.needs("git")
def test_b19_bytes_of_the_first_generation(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror")
    ignore = tmp_path / "ignore"
    ignore.write_text("*.log\n")
    project.git("config", "core.excludesFile", str(ignore))
    project.write("k8s/.gitignore", ".terraform/\n")
    project.write("k8s/.terraform/x", "")
    os.truncate(project.root / "k8s/.terraform/x", 700 << 20)
    project.write(".git/info/exclude", ".claude/worktrees/\n")
    for number in range(50):
        project.write(f".claude/worktrees/w{number}/src/a.py", "x" * 10_000)
        project.write(f"src/m{number}.py", f"N = {number}\n")
    project.write("big.log", "x" * 5_000_000)
    with project.up() as up:
        first = up.wait(lambda event: bool(event.get("first")))
        whole = sum(path.lstat().st_size for path in project.root.rglob("*") if path.is_file())
        assert whole > 700 << 20
        assert 0 < first["bytes"] < whole / 100
        assert not (project.tree / "k8s/.terraform").exists()
        assert not (project.tree / "big.log").exists()
        assert not (project.tree / ".claude/worktrees").exists()
        assert (project.tree / "src/m49.py").exists()
        shown = project.json("status")["projects"][0]
        assert shown["files"] < 60
        assert shown["bytes"] < whole / 100
