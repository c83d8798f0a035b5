"""Where a home's sockets are, whoever asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox_agent.home import find_run_folder, run_folder


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short ``$XDG_RUNTIME_DIR``, as a login gives it."""
    folder = Path("/tmp") / f"hbrt-{os.getpid()}"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def deep(tmp_path: Path) -> str:
    """A home whose path is too long for sockets."""
    return str(tmp_path / ("deep" * 30) / "home")


def test_who_has_another_environment_finds_the_same_place(
        runtime: Path, deep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = run_folder(deep)
    assert place.startswith(str(runtime))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert find_run_folder(deep) == place
    assert run_folder(deep) == place


def test_a_place_that_is_gone_is_chosen_anew(
        runtime: Path, deep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = runtime / "gone"
    gone.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(gone))
    first = run_folder(deep)
    shutil.rmtree(gone)
    gone.write_text("nothing can be made here")
    assert find_run_folder(deep) is None
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    second = run_folder(deep)
    assert second != first
    assert find_run_folder(deep) == second == run_folder(deep)


def test_a_copied_home_has_a_place_of_its_own(runtime: Path, deep: str) -> None:
    place = run_folder(deep)
    shutil.copytree(deep, deep + "-copy")
    assert find_run_folder(deep + "-copy") is None
    assert run_folder(deep + "-copy") != place


@pytest.mark.parametrize("name", ["short", "long" * 30])
def test_who_only_asks_makes_nothing(runtime: Path, tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    assert find_run_folder(str(home)) is None
    assert not list(home.iterdir())
    assert not list(runtime.iterdir())
