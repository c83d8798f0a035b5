"""The stage of a target with a tree of its own, on a real tree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.generation import Outcome, Verdict
from hyperbox_agent.errors import BaseChangedError
from hyperbox_agent.store.pruning import Keep
from hyperbox_agent.supervise.mirror import Mirror
from hyperbox_agent.supervise.supervisor import Reloaded
from hyperbox_agent.supervise.transaction import Permit, Transaction, Work
from hyperbox_langpacks.base import Rung, RungChoice


class Willing:
    """A supervisor of a program that takes every version at once."""

    serving = 1

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[dict[str, Any]]:
        yield {}

    async def gate(self, files: object) -> tuple[()]:
        return ()

    def choose(self, changes: object, *, first: bool = False) -> RungChoice:
        return RungChoice(Rung.NOTHING, "a test")

    async def reload(self, number: int, choice: RungChoice, *, root: str,
                     permit: Any, taken_back: Any, keep_old: bool) -> Reloaded:
        return Reloaded(await permit(), False, choice.rung, choice.why)

    async def step_forward(self) -> None:
        pass


class Mirrored:
    """A tree and what runs generations on it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self.mirror = Mirror(str(self.root), str(folder / "home"), session="s", keep=Keep())
        supervisor: Any = Willing()
        self._transaction = Transaction(supervisor, self.mirror, SystemClock(), lambda event: None)

    async def run(self, number: int, folder: str, base: int | None = None) -> Outcome:
        """A generation that makes one folder."""
        permit = Permit()
        permit.settle()
        change = Change(folder, None, Entry(folder, Kind.DIR, 0o755))
        return await self._transaction.run(Work(number, (change,), permit, base=base))


async def test_a_batch_against_another_generation_is_refused_before_anything_moves(
        tmp_path: Path) -> None:
    mirrored = Mirrored(tmp_path)
    assert (await mirrored.run(1, "a", base=0)).verdict is Verdict.COMMITTED
    assert (await mirrored.run(2, "b", base=1)).verdict is Verdict.COMMITTED
    with pytest.raises(BaseChangedError) as raised:
        await mirrored.run(3, "c", base=1)
    assert (raised.value.base, raised.value.holds) == (1, 2)
    assert sorted(path.name for path in mirrored.root.iterdir()) == ["a", "b"]
    assert (await mirrored.run(3, "c", base=2)).verdict is Verdict.COMMITTED
    assert (await mirrored.run(4, "d")).verdict is Verdict.COMMITTED, "going back has no base"
    await mirrored.mirror.close()
