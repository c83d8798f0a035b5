"""At most one agent a home, and nothing of it left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox_agent.errors import AgentError
from hyperbox_agent.home import find_run_folder
from hyperbox_agent.link import only
from hyperbox_agent.link.only import OnlyAgent


@pytest.fixture
def home() -> Iterator[str]:
    """A home whose sockets are in it: its path is short."""
    path = tempfile.mkdtemp(prefix="hbo")
    yield path
    shutil.rmtree(path)


def test_a_second_agent_is_refused_until_the_first_has_gone(home: str) -> None:
    first = OnlyAgent(home)
    with pytest.raises(AgentError, match="another agent"):
        OnlyAgent(home)
    first.close()
    OnlyAgent(home).close()
    assert os.listdir(os.path.join(home, "run")) == []


def test_a_run_folder_elsewhere_goes_with_its_agent(tmp_path: Path) -> None:
    deep = str(tmp_path / ("deep" * 30) / "home")
    first = OnlyAgent(deep)
    assert not first.run.startswith(deep)
    first.close()
    assert not os.path.exists(first.run)
    assert find_run_folder(deep) is None
    again = OnlyAgent(deep)
    left = Path(again.run, "holder.log")
    left.write_text("why it died")
    again.close()
    assert os.listdir(again.run) == ["holder.log"]
    shutil.rmtree(again.run)


@pytest.mark.parametrize("where", ["in it", "elsewhere"])
def test_who_opened_a_lock_that_was_removed_takes_the_next_one(
        home: str, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "elsewhere":
        home = str(tmp_path / ("deep" * 30) / "home")
    first, lock = OnlyAgent(home), only.fcntl.flock

    def late(fd: int, how: int) -> None:
        monkeypatch.setattr(only.fcntl, "flock", lock)
        first.close()
        lock(fd, how)

    monkeypatch.setattr(only.fcntl, "flock", late)
    second = OnlyAgent(home)
    with pytest.raises(AgentError, match="another agent"):
        OnlyAgent(home)
    second.close()
