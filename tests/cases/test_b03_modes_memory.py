"""B03: the executable bit is carried, and its loss is a generation of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory import MemoryProject, eventually


async def test_b03_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    project.write("run.sh", "#!/bin/sh\necho hi\n")
    (project.root / "run.sh").chmod(0o755)
    project.write("data.txt", "d")
    async with project.up() as session:
        await session.flush(20)
        assert project.agent.tree["run.sh"].executable
        assert not project.agent.tree["data.txt"].executable
        count = len(project.generations())
        (project.root / "run.sh").chmod(0o644)
        await eventually(lambda: not project.agent.tree["run.sh"].executable)
        await session.flush(20)
        new = project.generations()[count:]
        assert [(event["verdict"], event["paths"]) for event in new] == [("committed", ["run.sh"])]
        # Its content was there: nothing had to travel.
        assert new[0]["bytes"] == 0
