"""B16: through ``hyperbox up``, with a folder in the project that it has no right to read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import journey
import pytest
from journey import Project, Steady, eventually

pytestmark = pytest.mark.needs("inotify")

CLOSED = ("pgdata", "secret.py")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Where we are root, what is run has not root's right to read everything."""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv (Debian: util-linux) is missing")
        monkeypatch.setattr(journey, "HYPERBOX", (
            "setpriv", "--bounding-set", "-dac_override,-dac_read_search", *journey.HYPERBOX))
    project = Project(tmp_path)
    project.write("pgdata/base", "1")
    project.write("secret.py", "1")
    for name in CLOSED:
        (project.root / name).chmod(0)
    yield project
    for name in CLOSED:
        (project.root / name).chmod(0o700)


def test_b16_only_the_edit_makes_a_generation_and_what_is_closed_is_said_once(
        project: Project) -> None:
    with project.up() as up:
        with Steady(project.port) as steady:
            mark = up.mark()
            (project.root / ".#app.py").symlink_to("user@host.123:45")
            project.write("4913", "")
            (project.root / "4913").unlink()
            for name in (".app.py.swp", "app.py~", "#app.py#"):
                project.write(name, "half an edit (")
            for number in range(1000):
                project.write(f"f{number}", "")
                (project.root / f"f{number}").unlink()
            project.version("v2")
            up.wait_generation(after=mark, paths=["ver.py"])
            eventually(lambda: project.ask() == "v2")
            assert project.hb("flush").returncode == 0
        assert not steady.failures
        shown = [one for one in up.generations() if one["verdict"] == "committed"]
        assert [one["paths"] for one in shown[1:]] == [["ver.py"]]
        problems = project.target()["problems"]
        assert sorted(problem["path"] for problem in problems) == sorted(CLOSED), problems
        assert all("permission" in problem["message"].lower() for problem in problems)
