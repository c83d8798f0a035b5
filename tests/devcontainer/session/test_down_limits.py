"""``down`` without a session has its limit: what does not end in time is ended by force."""

from __future__ import annotations

from pathlib import Path

import pytest
from journey import BASE_APP, Project, eventually, leftovers

from hyperbox_agent.errors import AgentError
from hyperbox_devcontainer import paths
from hyperbox_devcontainer.errors import TargetError, WorkstationError
from hyperbox_devcontainer.homes import Home
from hyperbox_devcontainer.session import opening

DEAF = BASE_APP.replace("class H", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                                   "class H", 1)


@pytest.mark.needs("linux")
def test_down_ends_by_force_what_does_not_end_in_time(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("app.py", DEAF)
    toml = (project.root / "hyperbox.toml").read_text()
    project.write("hyperbox.toml", toml.replace("[app]", "[app]\ngrace = 300", 1))
    with project.up() as up:
        up.process.kill()
        up.process.wait(20)
        down = project.hb("down", "--timeout", "1")
        assert (down.returncode, down.stderr) == (0, "")
        assert down.stdout.strip().endswith("is down")
        eventually(lambda: not leftovers(project))


@pytest.mark.parametrize("error", [
    TimeoutError(), AgentError("no"), TargetError("no", target="t"), WorkstationError("no"),
    OSError(5, "no")])
async def test_one_home_that_fails_does_not_keep_the_others(
        tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    bad, good = (Home("t", "process", path) for path in ("/bad", "/good"))

    async def down(project: paths.Project, home: Home, *, fast: bool = False) -> bool:
        asked.append(home)
        if home == bad:
            raise error
        return True

    monkeypatch.setattr(opening, "_down", down)
    project = paths.find_project(str(tmp_path))
    with pytest.raises((AgentError, WorkstationError, OSError)) as raised:
        await opening._down_all(project, [bad, good], 5.0)
    assert asked[-1] == good
    if isinstance(error, TimeoutError):
        assert isinstance(raised.value, WorkstationError)
        assert raised.value.file == "/bad"
        assert "/bad" in raised.value.message
