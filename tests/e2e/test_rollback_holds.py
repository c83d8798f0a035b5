"""A roll-back holds until the next save, whatever of ours is killed meanwhile."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from journey import Project, Up, eventually
from killing import kill, pids


@pytest.fixture(params=["in-place", pytest.param("mirror", marks=pytest.mark.slow)])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    return Project(tmp_path, mode=request.param)


def saved(project: Project, up: Up, word: str) -> int:
    """Save ``word``; gives its generation once it is live."""
    mark = up.mark()
    project.version(word)
    number: int = up.wait_generation(after=mark)["number"]
    assert project.ask() == word
    return number


def holds(project: Project, up: Up, number: int, word: str, *, after: int) -> None:
    """The older version answers, goes on to, and every verb knows."""
    up.wait(lambda e: e.get("event") == "state" and e["state"] == "live"
            and e["number"] == number, after=after)
    assert project.hb("flush").returncode == 0
    assert project.ask() == word
    target = project.target()
    assert (target["number"], target["held"], target["pending"]) == (number, number, 1)
    assert f"rolled back to #{number}: 1 file differs" in project.hb("status").stdout


def built(project: Project) -> list[Path]:
    """Trees of older generations that were built to run."""
    return list(Path(project.env["XDG_STATE_HOME"]).glob("hyperbox/projects/*/trees/*"))


def test_kills_do_not_undo_it_and_the_next_save_does(project: Project) -> None:
    with project.up() as up, ExitStack() as after:
        second = saved(project, up, "v2")
        third = saved(project, up, "v3")
        rolled = project.json("rollback", str(second))
        assert rolled["differs"] == ["ver.py"]
        holds(project, up, second, "v2", after=0)
        assert [(row["number"], row.get("rollback")) for row in project.generations()[:2]] == [
            (second, True), (third, None)]

        mark = up.mark()
        kill(pids(project)["agent"])
        holds(project, up, second, "v2", after=mark)

        up.process.kill()
        up.process.wait(60)
        up = Up(project)
        after.callback(up.end)
        holds(project, up, second, "v2", after=0)

        mark = up.mark()
        ours = pids(project)
        kill(ours["agent"], ours["program"])
        holds(project, up, second, "v2", after=mark)

        assert saved(project, up, "v4") > third
        assert project.target()["held"] is None
        eventually(lambda: not built(project), message="what is over was not removed")
        project.json("rollback", str(third))
        assert len(built(project)) == (project.mode == "in-place")
        restarted = project.json("restart")
        assert project.generations()[0]["number"] == restarted["number"]
        assert project.generations()[0]["restart"] is True
    assert not built(project)
