"""Where a project's targets are is found again, whatever kind they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperbox_agent.errors import AgentError
from hyperbox_devcontainer.homes import HOMES, Home, known_homes, remember_home
from hyperbox_devcontainer.paths import Project, project_home
from hyperbox_devcontainer.session.opening import down

ONE = Home("process", "process", "/a/target-process")
ODD = Home("b\n\udcff", "ssh", "/h\udcffome")


def test_what_is_noted_once_is_known(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert known_homes(folder) == []
    for home in (ONE, ODD, ONE):
        remember_home(folder, home)
    with open(tmp_path / HOMES, "a") as file:
        file.write('[]\n{"target": 3, "kind": "ssh", "home": "/x"}\n{"target": "half')
    assert known_homes(folder) == [ONE, ODD]
    assert (tmp_path / HOMES).stat().st_mode & 0o777 == 0o600


def test_a_target_of_another_kind_is_reached_as_what_it_is(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    project = Project(str(tmp_path / "p"), "p", "p-1")
    state = Path(project_home(project, {"XDG_STATE_HOME": str(tmp_path / "state")}))
    state.mkdir(parents=True)
    remember_home(str(state), Home("board", "ssh", "/home/board"))
    with pytest.raises(AgentError, match="no target kind 'ssh' yet"):
        down(project, timeout=5)
