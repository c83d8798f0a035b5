"""``pull``: what the program writes into its mirrored tree comes back, and nothing else does."""

from __future__ import annotations

import os
import time
from pathlib import Path

from journey import Project, eventually

PULL = '[sync]\npull = ["poems.lock", "migrations/"]\n'


def a_project(folder: Path) -> Project:
    project = Project(folder, mode="mirror", extra=PULL)
    project.write("poems.lock", "version = 1\n")
    project.write("shop/models.py", "")
    project.write("shop/migrations/0001_initial.py", "# 1\n")
    return project


def here(project: Project, path: str) -> str | None:
    file = project.root / path
    return file.read_text() if file.exists() else None


def test_what_the_program_writes_comes_back_without_a_reload(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    with project.up() as up:
        tree = project.tree
        (tree / "shop/migrations/0002_more.py").write_text("# 2\n")
        (tree / "shop/migrations/deep").mkdir()
        (tree / "shop/migrations/deep/0003.py").write_text("# 3\n")
        (tree / "shop/migrations/__pycache__").mkdir()
        (tree / "shop/migrations/__pycache__/x.pyc").write_text("x")
        (tree / "poems.lock").write_text("version = 2\n")
        (tree / "shop/views.py").write_text("# not pulled\n")
        (tree / "state.json").write_text("{}")
        for path, text in (("poems.lock", "version = 2\n"),
                           ("shop/migrations/0002_more.py", "# 2\n"),
                           ("shop/migrations/deep/0003.py", "# 3\n")):
            eventually(lambda path=path, text=text: here(project, path) == text, message=path)
        project.hb("flush")
        assert not (project.root / "shop/views.py").exists()
        assert not (project.root / "state.json").exists()
        assert not (project.root / "shop/migrations/__pycache__").exists()
        assert [event for event in up.generations() if not event.get("first")] == []
        pulled = [event for event in up.events if event["event"] == "pulled"]
        assert {path for event in pulled for path in event["paths"]} == {
            "poems.lock", "shop/migrations/0002_more.py", "shop/migrations/deep/0003.py"}
        # And what was pulled is edited here as any other file.
        project.write("shop/migrations/0002_more.py", "# 2, by hand\n")
        assert project.hb("flush").returncode == 0
        assert (tree / "shop/migrations/0002_more.py").read_text() == "# 2, by hand\n"
        assert project.target()["problems"] == []
    # The next start agrees with what it finds: only the start itself is a generation.
    with project.up() as up:
        assert project.hb("flush").returncode == 0
        up.wait(lambda event: bool(event.get("first")))
        assert [event["files"] for event in up.generations()] == [0]


def test_what_both_ends_changed_is_kept_twice(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    with project.up():
        assert project.hb("pause").returncode == 0
        project.write("poems.lock", "mine\n")
        (project.tree / "poems.lock").write_text("theirs\n")
        eventually(lambda: here(project, "poems.lock.from-process") == "theirs\n")
        assert here(project, "poems.lock") == "mine\n"
        assert project.hb("resume").returncode == 0
        assert project.hb("flush").returncode == 0
        eventually(lambda: (project.tree / "poems.lock").read_text() == "mine\n")
        assert not (project.tree / "poems.lock.from-process").exists()
        problem, = [p for p in project.target()["problems"] if p["path"] == "poems.lock"]
        assert "poems.lock.from-process" in problem["message"]


def test_a_save_that_races_with_the_program_loses_neither(tmp_path: Path) -> None:
    """The save goes out at once; what the program wrote just before is fetched ahead of it."""
    project = a_project(tmp_path)
    with project.up():
        (project.tree / "poems.lock").write_text("theirs\n")
        project.write("poems.lock", "mine\n")
        eventually(lambda: here(project, "poems.lock.from-process") == "theirs\n"
                   or here(project, "poems.lock") == "theirs\n")
        assert project.hb("flush").returncode == 0
        both = {here(project, "poems.lock"), here(project, "poems.lock.from-process")}
        assert both in ({"mine\n", "theirs\n"}, {"mine\n", None})


def test_a_wiped_tree_removes_nothing_here(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    with project.up():
        (project.tree / "poems.lock").unlink()
        (project.tree / "shop/migrations/0001_initial.py").unlink()
        (project.tree / "shop/migrations/0002.py").write_text("# 2\n")
        eventually(lambda: here(project, "shop/migrations/0002.py") == "# 2\n")
        assert here(project, "poems.lock") == "version = 1\n"
        assert here(project, "shop/migrations/0001_initial.py") == "# 1\n"


def test_written_while_nobody_was_there(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    with project.up():
        pass
    (project.tree / "shop/migrations/0002.py").write_text("# 2\n")
    os.utime(project.tree / "shop/migrations/0002.py", (time.time() - 86400,) * 2)
    with project.up() as up:
        assert here(project, "shop/migrations/0002.py") == "# 2\n"
        assert project.hb("flush").returncode == 0
        up.wait(lambda event: bool(event.get("first")))
        assert [event["files"] for event in up.generations()] == [0]
