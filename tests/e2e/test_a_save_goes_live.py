"""The main journey, in place and mirrored, through the command line alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from journey import Project, Steady, Up, eventually, same_trees


@pytest.fixture(params=["in-place", "mirror"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    return Project(tmp_path, mode=request.param, landed=False)


def test_edits_go_live_and_a_broken_one_does_not(project: Project) -> None:
    with project.up() as up:
        assert project.ask() == "v1"
        with Steady(project.port) as steady:
            for word in ("v2", "v3", "v4"):
                mark = up.mark()
                project.version(word)
                up.wait_generation(after=mark)
                assert project.ask() == word
            mark = up.mark()
            project.write("ver.py", 'V = "v5"\ndef x(:\n')
            broken = up.wait_generation("rolled_back", after=mark)
            assert (broken["error"]["path"], broken["error"]["line"]) == ("ver.py", 2)
            assert project.ask() == "v4"
            assert project.hb("flush").returncode == 3
            mark = up.mark()
            project.version("v6")
            up.wait_generation(after=mark)
            assert project.ask() == "v6"
            assert project.hb("flush").returncode == 0
        assert not steady.failures
        assert set(steady.answers) <= {"v1", "v2", "v3", "v4", "v6"}
        if project.mode == "mirror":
            eventually(lambda: same_trees(project.root, project.tree))


@pytest.mark.parametrize("name", ["new.py", "new.json"])
def test_a_file_that_the_newest_version_has_just_read_is_edited_at_once(
        project: Project, name: str) -> None:
    """The save looks like the rest of the one before: the version before, which answers meanwhile,
    has never read that file, but the one that comes back has."""
    get, put = {"new.py": ("from new import V", "V = {!r}\n"),
                "new.json": ("V = __import__('json').load(open('new.json'))", '"{}"\n')}[name]
    with project.up() as up:
        for turn in range(4):
            project.write(name, put.format(f"old{turn}"))
            project.hb("flush")
            mark = up.mark()
            project.write("ver.py", f"# {turn}\n{get}\n")
            up.wait_generation(after=mark)
            project.write(name, put.format(f"new{turn}"))
            assert project.hb("flush").returncode == 0
            assert project.ask() == f"new{turn}"
            mark = up.mark()
            project.version(f"without{turn}")
            up.wait_generation(after=mark)


def test_rolling_back_runs_the_older_version_until_the_next_save(project: Project) -> None:
    with project.up() as up:
        mark = up.mark()
        project.version("v2")
        second = up.wait_generation(after=mark)
        mark = up.mark()
        project.version("v3")
        up.wait_generation(after=mark)
        source = (project.root / "ver.py").read_text()
        mark = up.mark()
        rolled = project.hb("rollback", str(second["number"]))
        assert rolled.returncode == 0, rolled.stderr
        up.wait_generation(after=mark, rollback=True)  # it is printed when the verb was answered
        assert project.ask() == "v2"
        assert (project.root / "ver.py").read_text() == source
        mark = up.mark()
        project.version("v4")
        up.wait_generation(after=mark)
        assert project.ask() == "v4"


def test_the_program_outlives_its_session_and_the_next_one_takes_it_over(
        project: Project) -> None:
    with project.up() as first, Steady(project.port) as before:
        first.process.kill()
        first.process.wait(60)
        project.version("v2")
        second = Up(project)
        try:
            second.wait_state("live")
            eventually(lambda: project.ask() == "v2")
        finally:
            before.stop()
            second.end()
    assert not before.failures


def test_a_broken_edit_that_is_undone_leaves_no_error(project: Project) -> None:
    with project.up() as up:
        good = (project.root / "ver.py").read_text()
        mark = up.mark()
        project.write("ver.py", "def x(:\n")
        up.wait_generation("rolled_back", after=mark)
        assert project.hb("flush").returncode == 3
        project.write("ver.py", good)
        eventually(lambda: project.target()["error"] is None)
        assert project.hb("flush").returncode == 0
        assert project.ask() == "v1"
