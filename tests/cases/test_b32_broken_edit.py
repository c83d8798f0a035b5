"""B32: a broken edit leaves the old version serving and says where it is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from journey import Project, Steady, Up


@pytest.fixture(params=["in-place", "mirror"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    return Project(tmp_path, mode=request.param)


BROKEN = {
    "half a line": ('V = "broken"\ndef x(:\n', "gate", 2),
    "import error at start": ('V = "broken"\nimport nope_not_there\n', None, 2),
    "exception at start": ('V = "broken"\nraise ValueError("no")\n', None, 2),
    "exception in the health request": ("V = 7\n", "health", None),
}


def test_b32_the_old_version_goes_on_and_the_place_is_named(project: Project) -> None:
    with project.up() as up, Steady(project.port) as steady:
        live, good = 1, ["v1"]
        for kind in BROKEN:
            break_it(project, up, kind, live)
            assert project.ask() == good[-1]
            good.append(f"v{len(good) + 1}")
            live = mend_it(project, up, good[-1])
        steady.stop()
        assert not steady.failures
        assert set(steady.answers) <= set(good)


def break_it(project: Project, up: Up, kind: str, live: int) -> None:
    """One broken edit; ``live`` stays live, and everything says where it is broken."""
    text, phase, line = BROKEN[kind]
    mark = up.mark()
    project.write("ver.py", text)
    broken = up.wait_generation("rolled_back", after=mark)
    if phase is not None:
        assert broken["error"]["phase"] == phase
    if line is not None:
        assert (broken["error"]["path"], broken["error"]["line"]) == ("ver.py", line)
    flush = project.hb("flush")
    assert flush.returncode == 3
    assert f"#{broken['number']}" in flush.stderr + flush.stdout
    target = project.target()
    assert (target["state"], target["number"]) == ("live", live)
    assert target["error"]["number"] == broken["number"]


def mend_it(project: Project, up: Up, word: str) -> int:
    """The number under which ``word`` went live."""
    mark = up.mark()
    project.version(word)
    mended = up.wait_generation(after=mark)
    assert project.ask() == word
    assert project.target()["error"] is None
    return int(mended["number"])


def test_b32_a_json_file_cut_in_half_is_found_by_the_gate(project: Project) -> None:
    project.write("settings.json", '{"a": 1}\n')
    project.write("ver.py", 'import json\nV = "v%d" % json.load(open("settings.json"))["a"]\n')
    with project.up() as up:
        mark = up.mark()
        project.write("settings.json", '{"a": \n')
        broken = up.wait_generation("rolled_back", after=mark)
        assert broken["error"]["path"] == "settings.json"
        assert project.ask() == "v1"
        mark = up.mark()
        project.write("settings.json", '{"a": 2}\n')
        up.wait_generation(after=mark)
        assert project.ask() == "v2"
