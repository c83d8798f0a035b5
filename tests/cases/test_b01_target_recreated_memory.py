"""B01: a target that was recreated under its name is a new one; the source never loses a byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory import MemoryProject, eventually


@pytest.mark.parametrize("brings", [{"other.txt": b"of the image"}, {}],
                         ids=["with files of its own", "empty"])
async def test_b01_recreated_while_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             brings: dict[str, bytes]) -> None:
    project = MemoryProject(tmp_path, monkeypatch, sync='pull = ["*.py", "*.txt"]')
    for n in range(20):
        project.write(f"pkg/m{n}.py", f"N = {n}\n")
    async with project.up() as session:
        await session.flush(20)
        before = project.here()
        assert project.there() == before
        project.agent.recreate(brings)
        assert project.target is not None
        project.target.cut_streams()
        await eventually(lambda: project.there() == before)
        await session.flush(20)
        assert project.here() == before
        shown = session.status()["targets"][0]["problems"]
        assert any("target was recreated" in problem["message"] for problem in shown)
        # What the new place brought is neither taken over nor removed; it is named.
        assert set(project.agent.foreign) == set(brings)
        assert any("other.txt" in message for message in project.problems()) == bool(brings)
        project.write("ver.py", 'V = "v2"\n')
        await eventually(lambda: project.there()["ver.py"] == b'V = "v2"\n')
        assert project.here().keys() == before.keys()


@pytest.mark.parametrize("how", ["recreate", "wipe"])
async def test_b01_recreated_between_two_sessions(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    project = MemoryProject(tmp_path, monkeypatch, sync='pull = ["*.py", "*.txt"]')
    async with project.up() as session:
        await session.flush(20)
    before = project.here()
    getattr(project.agent, how)()
    project.agent.serving = None
    async with project.up() as session:
        await session.flush(20)
        assert project.there() == before
        assert project.here() == before
    assert any("recreated" in message for message in project.problems())
