"""B03: the program and its tree have the umask of the user's shell; what is ours is ours alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from journey import BASE_APP, Project

pytestmark = pytest.mark.needs("linux")

WRITING = BASE_APP.replace("class H", 'open(f"made-{ver.V}.log", "w").close()\nclass H', 1)
OTHERS = ("/stage/", "/store/", "/trees/", "/agent/hyperbox-agent-", "/__pycache__/")
"""Below a home: what goes into a tree or came out of it has that tree's modes, and what an
interpreter makes has its own. The folder that it is in is closed."""


@pytest.fixture(autouse=True)
def of_a_group() -> Iterator[None]:
    """A umask that is neither the usual one nor ours."""
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize("mode", ["in-place", "mirror"])
def test_b03_the_umask_is_the_users(tmp_path: Path, mode: str) -> None:
    project = Project(tmp_path, mode=mode, landed=mode != "mirror")
    project.write(".gitignore", "*.log\n")
    project.write("app.py", WRITING)
    with project.up():
        project.version("v2")
        assert project.hb("flush").returncode == 0
        made = {path.name: mode_of(path) for path in project.tree.glob("made-*.log")}
        assert made == {"made-v1.log": 0o640, "made-v2.log": 0o640}
        assert project.hb("exec", "--", "sh", "-c", "umask").stdout.strip() == "0027"
        assert mode_of(project.tree / "ver.py") == 0o640
        assert mode_of(project.tree) == 0o750
        assert not open_to_others(tmp_path / "state")
        assert not open_to_others(tmp_path / ".hyperbox-T")


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def open_to_others(folder: Path) -> list[str]:
    """What of ours others could look into, were it not for the folder that it is in."""
    found = []
    for base, _, names in os.walk(folder):
        for name in (base, *(os.path.join(base, one) for one in names)):
            facts = os.lstat(name)
            if facts.st_mode & 0o077 and not os.path.islink(name) and not any(
                    part in f"{name}/"[len(str(folder)):] for part in OTHERS):
                found.append(f"{facts.st_mode & 0o777:o} {name}")
    return found
