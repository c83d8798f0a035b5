"""A whole session against a target in memory: real source, real link, an agent that can lie."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.clock import Clock
from hyperbox_devcontainer.config import load
from hyperbox_devcontainer.session import open_session
from hyperbox_devcontainer.session.connect import MemoryConnector
from hyperbox_devcontainer.session.options import SessionOptions
from hyperbox_devcontainer.session.session import Session
from hyperbox_devcontainer.target.memory import MemoryTarget
from hyperbox_devcontainer.target.memory_agent import MemoryAgent

PATIENCE = 60.0


class MemoryProject:
    """A project folder whose target ``mem`` is in memory. ``events`` grows with each session."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, sync: str = "") -> None:
        self.root = folder / "p"
        self.root.mkdir()
        self.agent = MemoryAgent()
        self.events: list[Mapping[str, Any]] = []
        self.target: MemoryTarget | None = None
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
        (folder / "run").mkdir(mode=0o700)
        self.write("ver.py", 'V = "v1"\n')
        self.write("app.py", "import ver\n")
        self.write("hyperbox.toml", f"""[app]\ncommand = ["python3", "app.py"]\n[sync]\n{sync}
[target.mem]\nkind = "process"\nmode = "mirror"\npath = "{folder / 'T'}"\n""")

    def write(self, path: str, text: str) -> None:
        """A file of the source."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Session]:
        """A session, live."""
        self.target = MemoryTarget("mem", programs={"hyperbox-agent": self.agent.program})

        def connect(options: SessionOptions, clock: Clock) -> MemoryConnector:
            assert self.target is not None
            return MemoryConnector(self.target, clock)

        session = await open_session(load(str(self.root), os.environ),
                                     on_event=self.events.append, clock=SystemClock(),
                                     connect=connect)
        try:
            yield session
        finally:
            await session.detach()
            await self.target.close()

    def generations(self) -> list[Mapping[str, Any]]:
        """All that were decided."""
        return [event for event in self.events if event["event"] == "generation"]

    def problems(self) -> list[str]:
        """What the user was told."""
        return [str(event["message"]) for event in self.events if event["event"] == "problem"]

    def there(self) -> dict[str, bytes]:
        """Files of the target's tree."""
        return {path: self.agent.store[entry.digest] for path, entry in self.agent.tree.items()
                if entry.kind.value == "file"}

    def here(self) -> dict[str, bytes]:
        """Files of the source."""
        return {str(path.relative_to(self.root)): path.read_bytes()
                for path in self.root.rglob("*") if path.is_file() and not path.is_symlink()}


async def eventually(check: Callable[[], bool], message: str = "", *,
                     seconds: float = PATIENCE) -> None:
    """Return as soon as ``check`` holds."""
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.01)
