"""B09: what the target has no room for waits, is named, and holds nothing else up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filesystems import tmpfs
from journey import Project, Steady, eventually

pytestmark = pytest.mark.needs("root", "mount")


@contextmanager
def full_target(folder: Path, options: str) -> Iterator[Project]:
    folder.mkdir(exist_ok=True)
    with tmpfs(folder / "mnt", options) as mounted:
        yield Project(folder, mode="mirror", tree=Path(mounted) / "T")


def test_b09_a_file_that_does_not_fit_waits_alone(tmp_path: Path) -> None:
    with full_target(tmp_path, "size=8m") as project, project.up() as up:
        mount = str(project.tree.parent)
        with Steady(project.port) as steady:
            project.write("model.bin", os.urandom(20 << 20))
            refused = up.wait_generation("rolled_back")
            error = refused["error"]
            assert mount in error["message"]
            assert "bytes are needed" in error["message"]
            assert "are free" in error["message"]
            assert "make room" in error["hint"]
            space = refused["facts"]["space"]
            assert space["need"] > 20 << 20 > space["have"] > 0
            assert not (project.tree / "model.bin").exists()
            # The next save is not held hostage.
            mark = up.mark()
            project.version("v2")
            up.wait_generation(paths=["ver.py"], after=mark)
            assert project.ask() == "v2"
            shown = project.target()
            assert shown["pending"] == 1
            waiting, = shown["problems"]
            assert waiting["path"] == "model.bin"
            assert mount in waiting["message"]
            # Asked for by name it is tried again, and refused again, with the same words.
            again = project.hb("flush")
            assert again.returncode == 3
            assert mount in again.stderr
            (project.root / "model.bin").unlink()
            eventually(lambda: project.target()["pending"] == 0)
            assert project.target()["problems"] == []
            project.version("v3")
            assert project.hb("flush").returncode == 0
            assert project.ask() == "v3"
        assert not steady.failures
        assert set(steady.answers) == {"v1", "v2", "v3"}


def test_b09_in_one_save_only_the_big_file_waits(tmp_path: Path) -> None:
    with full_target(tmp_path, "size=8m") as project, project.up() as up:
        assert project.hb("pause").returncode == 0
        project.write("model.bin", os.urandom(20 << 20))
        project.write("small.bin", b"small")
        project.version("v2")
        assert project.hb("resume").returncode == 0
        up.wait_generation(paths=["small.bin", "ver.py"])
        assert project.ask() == "v2"
        assert not (project.tree / "model.bin").exists()
        # Smaller, it fits: that it changed is reason enough to try again.
        project.write("model.bin", b"tiny")
        eventually(lambda: (project.tree / "model.bin").exists())
        assert (project.tree / "model.bin").read_bytes() == b"tiny"


def test_b09_already_at_the_first_start(tmp_path: Path) -> None:
    with full_target(tmp_path, "size=8m") as project:
        project.write("model.bin", os.urandom(20 << 20))
        with project.up():
            assert project.ask() == "v1"
            assert project.target()["pending"] == 1
            assert not (project.tree / "model.bin").exists()


def test_b09_too_few_inodes(tmp_path: Path) -> None:
    with full_target(tmp_path, "size=8m,nr_inodes=200") as project, project.up() as up:
        for number in range(300):
            project.write(f"many/f{number}", b"%d" % number)
        refused = up.wait_generation("rolled_back")
        assert "inodes" in refused["error"]["message"]
        assert str(project.tree.parent) in refused["error"]["message"]
        mark = up.mark()
        project.version("v2")
        up.wait_generation(paths=["ver.py"], after=mark)
        assert project.ask() == "v2"
        for number in range(300):
            (project.root / f"many/f{number}").unlink()
        (project.root / "many").rmdir()
        eventually(lambda: project.target()["pending"] == 0)


def test_b09_somebody_makes_room(tmp_path: Path) -> None:
    with full_target(tmp_path, "size=8m") as project, project.up() as up:
        ballast = project.tree.parent / "ballast"
        facts = os.statvfs(ballast.parent)
        ballast.write_bytes(bytes(facts.f_bavail * facts.f_frsize - (1 << 20)))
        project.write("model.bin", os.urandom(2 << 20))
        up.wait_generation("rolled_back")
        ballast.unlink()
        assert project.hb("flush").returncode == 0
        assert (project.tree / "model.bin").stat().st_size == 2 << 20
        assert project.target()["problems"] == []
