from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hyperbox_devcontainer.verbs import server as verbs


async def test_a_client_that_says_nothing_is_left_without_a_word(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "HELLO_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    (tmp_path / "s").mkdir(mode=0o700)
    made = verbs.VerbServer("s/v", {})
    await made.open()
    reader, writer = await asyncio.open_unix_connection("s/v")
    await asyncio.wait_for(reader.read(), 20)  # our hello, then the end
    await asyncio.sleep(0)
    writer.close()
    await made.close()
    assert told == []
