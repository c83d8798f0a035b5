"""B05: while a whole session works, a watcher in the tree sees final names and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from filesystems import tmpfs
from journey import Project, eventually
from spying import spying

pytestmark = pytest.mark.needs("inotify")


@pytest.fixture(params=["same filesystem", pytest.param(
    "filesystem of its own", marks=pytest.mark.needs("root", "mount"))])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    if request.param == "same filesystem":
        yield Project(tmp_path, mode="mirror")
        return
    (tmp_path / "mnt").mkdir()
    with tmpfs(tmp_path / "mnt", "size=64m") as mounted:
        yield Project(tmp_path, mode="mirror", tree=Path(mounted) / "T")


def test_b05_fifty_edits(project: Project) -> None:
    names = [f"pkg{number % 5}/m{number}.py" for number in range(50)]
    for name in names:
        project.write(name, "N = 1\n")
    with project.up(), spying(str(project.tree)) as spy:
        for name in names[:25]:
            project.write(name, "N = 2\n")
        for name in names[25:]:
            project.replace(name, "N = 2\n")
        eventually(lambda: all((project.tree / name).read_text() == "N = 2\n" for name in names))
        assert project.hb("flush").returncode == 0
        seen = [(word, path) for word, path in spy.read() if "__pycache__" not in path]
        # A file may have come twice, where a batch began between two saves; never by another name.
        assert {path for _, path in seen} == set(names)
        assert {word for word, _ in seen} == {"moved_to"}
