"""B11: after an outage what one end edited is no conflict."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from journey import Project, processes, same_trees


def session_link(project: Project) -> int:
    """The program in between that carries the session's link: the agent's own process here."""
    mark = project.env["XDG_STATE_HOME"]
    found = [pid for pid, line, env in processes(mark)
             if " serve --home " in line and f"XDG_STATE_HOME={mark}" in env]
    return found[0]


def test_b11_three_hundred_edits_while_cut(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror", extra='[sync]\npull = ["gen/", "x.py"]\n')
    for number in range(300):
        project.write(f"src/m{number}.py", f"N = {number}\n")
        project.write(f"gen/g{number}.py", f"N = {number}\n")
    project.write("x.py", "base\n")
    with project.up() as up:
        # Its end of the pipe breaks in the middle of the edits; the tree stays.
        for number in range(150):
            project.write(f"src/m{number}.py", "# edited\n")
        os.kill(session_link(project), signal.SIGKILL)
        for number in range(150, 300):
            project.write(f"src/m{number}.py", "# edited\n")
            project.write(f"gen/g{number}.py", "# edited here\n")
        for number in range(150):
            (project.tree / f"gen/g{number}.py").write_text("# edited there\n")
        assert project.hb("flush").returncode == 0
        assert same_trees(project.root, project.tree)
        assert (project.root / "gen/g0.py").read_text() == "# edited there\n"
        assert (project.tree / "gen/g299.py").read_text() == "# edited here\n"
        assert not list(project.root.rglob("*.from-*"))
        assert [p for p in project.target()["problems"] if "both ends" in p["message"]] == []
        assert not [event for event in up.generations() if event["verdict"] == "rolled_back"]


def test_b11_the_real_conflict_keeps_both(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror", extra='[sync]\npull = ["x.txt"]\n')
    project.write("x.txt", "base\n")
    with project.up():
        assert project.hb("pause").returncode == 0
        os.kill(session_link(project), signal.SIGKILL)
        (project.tree / "x.txt").write_text("theirs\n")
        project.write("x.txt", "mine\n")
        assert project.hb("resume").returncode == 0
        assert project.hb("flush").returncode == 0
        assert (project.root / "x.txt").read_text() == "mine\n"
        assert (project.tree / "x.txt").read_text() == "mine\n"
        assert (project.root / "x.txt.from-process").read_text() == "theirs\n"
        named, = [p for p in project.target()["problems"] if p["path"] == "x.txt"]
        assert "both ends" in named["message"]
        # Both digests are shown.
        assert len([word for word in named["message"].replace("(", " ").replace(")", " ").split()
                    if len(word) == 12 and all(char in "0123456789abcdef" for char in word)]) == 2
