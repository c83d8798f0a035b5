"""``kill -9`` in a first sync: nothing of it is in the tree, and the next one fills it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from journey import Project, Up, eventually
from killing import kill, pids, residue

from hyperbox_agent.apply.home import default_home

FILES = 3_000


def big_project(folder: Path) -> Project:
    """One whose first sync takes a while: 60 MB."""
    project = Project(folder, mode="mirror")
    project.env["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="hbk-")
    for number in range(FILES):
        project.write(f"data/{number % 40}/{number}.txt", f"{number}\n" * 4_000)
    return project


def home(project: Project) -> Path:
    return Path(default_home(str(project.tree)))


def has_begun(project: Project) -> bool:
    """Whether files of it have come, and not all."""
    found = sum(len(names) for _, _, names in os.walk(home(project) / "stage" / "ahead"))
    return 100 < found < FILES * 3 // 4


def is_filled(project: Project) -> bool:
    wanted = {path.relative_to(project.root): path.stat().st_size
              for path in project.root.rglob("*.txt")}
    tree = Path(project.tree)
    return wanted == {path.relative_to(tree): path.stat().st_size
                      for path in tree.rglob("*.txt")}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["agent", "session", "agent+session"])
def test_killed_in_a_first_sync_the_tree_is_empty_and_then_filled(tmp_path: Path, part: str
                                                                   ) -> None:
    project = big_project(tmp_path)
    with project.up(live=False) as up:
        eventually(lambda: has_begun(project), 60)
        ours = pids(project)
        kill(*(ours[name] for name in part.split("+")))
        assert not any(os.scandir(project.tree)), "what is not live is not in the tree"
        if "session" in part:
            up.process.wait(60)
            again = Up(project)
            try:
                again.wait_state("live")
                assert is_filled(project)
            finally:
                again.end()
        else:
            up.wait_state("live")
            assert is_filled(project)
        assert list(home(project).glob("stage/*")) == []
    assert not residue(project), residue(project)
