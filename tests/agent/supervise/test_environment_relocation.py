"""A copy of an environment that runs from where it stands, and the way back."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hyperbox_agent.supervise import relocation


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    folder = tmp_path / "p/.venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    site = next(folder.glob("lib/*/site-packages"))
    (site / "dep.py").write_text("V = 1\n")
    (site / "big.so").write_bytes(b"\0" * relocation.BIG)
    (site / "own.pth").write_text(f"{folder}/extra\n{folder}-other\n")
    script = folder / "bin/dep"
    script.write_text(f"#!{folder}/bin/python\nimport dep, sys\nprint(dep.V, sys.prefix)\n")
    script.chmod(0o755)
    return folder


def run(folder: Path) -> list[str]:
    return subprocess.run([folder / "bin/dep"], check=True, text=True, capture_output=True,
                          timeout=60).stdout.split()


def site_of(folder: Path) -> Path:
    return next(folder.glob("lib/*/site-packages"))


def test_a_copy_runs_by_itself(venv: Path, tmp_path: Path) -> None:
    copy = tmp_path / "7"
    relocation.copy(str(venv), str(copy))
    assert run(copy) == ["1", str(copy)]
    assert run(venv) == ["1", str(venv)]
    assert (site_of(copy) / "own.pth").read_text() == f"{copy}/extra\n{venv}-other\n"
    assert (site_of(copy) / "big.so").samefile(site_of(venv) / "big.so")
    assert not (site_of(copy) / "dep.py").samefile(site_of(venv) / "dep.py")


def test_only_what_changed_is_brought_over(venv: Path, tmp_path: Path) -> None:
    copy = tmp_path / "7"
    before = relocation.copy(str(venv), str(copy))
    site, own = site_of(copy), site_of(venv)
    (site / "dep.py").write_text("V = 22\n")
    (site / "more/x").mkdir(parents=True)
    (site / "more/x/y.py").write_text("")
    (site / "big.so").unlink()
    (copy / "bin/new").write_text(f"#!{copy}/bin/python\n")
    (copy / "bin/new").chmod(0o755)
    (own / "mine.py").write_text("the user's, meanwhile\n")
    assert relocation.bring_over(str(copy), before, str(venv)) == 6
    assert run(venv) == ["22", str(venv)]
    assert (venv / "bin/new").read_text() == f"#!{venv}/bin/python\n"
    assert os.access(venv / "bin/new", os.X_OK)
    assert (own / "more/x/y.py").exists()
    assert not (own / "big.so").exists()
    assert (own / "mine.py").exists()
    assert not list(venv.rglob("*.hyperbox-new"))
    assert relocation.bring_over(str(copy), before, str(venv)) == 5  # again: the same


def test_kinds_may_change(venv: Path, tmp_path: Path) -> None:
    copy = tmp_path / "7"
    site = site_of(venv)
    (site / "a").mkdir()
    (site / "a/x.py").write_text("")
    (site / "b").write_text("")
    before = relocation.copy(str(venv), str(copy))
    there = site_of(copy)
    (there / "a/x.py").unlink()
    (there / "a").rmdir()
    (there / "a").write_text("a file")
    (there / "b").unlink()
    (there / "b").mkdir()
    (there / "c").symlink_to("a")
    relocation.bring_over(str(copy), before, str(venv))
    assert (site / "a").read_text() == "a file"
    assert (site / "b").is_dir()
    assert os.readlink(site / "c") == "a"


def test_a_copy_that_fails_leaves_nothing(venv: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="No space"):
        relocation.copy(str(venv), str(tmp_path / "7"))
    assert not (tmp_path / "7").exists()
    assert run(venv) == ["1", str(venv)]
