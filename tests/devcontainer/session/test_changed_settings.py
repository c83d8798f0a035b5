"""A change of hyperbox.toml is named: what is up goes on as it was configured."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory import MemoryProject, eventually


@pytest.mark.parametrize(("text", "said"), [
    ("[app]\ncommand = ['python3', 'app.py']\nenv_file = []\n", "goes on as it was configured"),
    ("[app]\nenv_fle = '.env'\n", "the next `hyperbox up` can't use it: unknown key `env_fle`"),
    ("[app\n", "the next `hyperbox up` can't use it")])
async def test_a_changed_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       text: str, said: str) -> None:
    project = MemoryProject(tmp_path, monkeypatch)
    async with project.up() as session:
        await session.flush(20)
        project.write("ver.py", "V = 'v2'\n")
        await session.flush(20)
        assert project.problems() == [], "its first version is not a change, nor is another file's"
        project.write("hyperbox.toml", text)
        await eventually(lambda: any(said in message for message in project.problems()))
