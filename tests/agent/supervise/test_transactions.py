"""One generation's way, with a supervisor and a stage that tell what was asked of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.generation import Verdict
from hyperbox_agent.errors import PortError
from hyperbox_agent.supervise.supervisor import Reloaded
from hyperbox_agent.supervise.transaction import Permit, Transaction, Work
from hyperbox_langpacks.base import Rung, RungChoice

SAVED = (Change("state.json", None, Entry("state.json", Kind.FILE, digest=b"1" * 32)),)


class FakeStage:
    def __init__(self, shares_tree: bool) -> None:
        self.shares_tree = shares_tree
        self.calls: list[str] = []

    async def prepare(self, work: Work) -> None:
        self.calls.append("prepare")

    def gate_files(self, work: Work) -> Sequence[tuple[str, str]]:
        return ()

    def untouched(self, work: Work) -> bool:
        return True

    async def apply(self, work: Work, supervisor: Any) -> str:
        self.calls.append("apply")
        return "/tree"

    async def undo(self, work: Work, supervisor: Any) -> None:
        self.calls.append("undo")

    def commit(self, work: Work) -> None:
        self.calls.append("commit")

    def discard(self, work: Work) -> None:
        self.calls.append("discard")


class FakeSupervisor:
    """Its program opened every path for writing a moment ago."""

    serving = 1
    error: Exception | None = None

    def wrote(self, path: str, since: float) -> bool:
        return True

    async def gate(self, files: object) -> tuple[()]:
        return ()

    def choose(self, changes: object) -> RungChoice:
        return RungChoice(Rung.COLD, "a test")

    async def reload(self, number: int, choice: RungChoice, *, root: str,
                     permit: Callable[[], Awaitable[bool]],
                     taken_back: Callable[[], Awaitable[None]]) -> Reloaded:
        if self.error is not None:
            raise self.error
        return Reloaded(await permit(), False, choice.rung, choice.why)


async def run(stage: FakeStage, supervisor: FakeSupervisor) -> Any:
    permit = Permit()
    permit.settle()
    made: Any = supervisor
    transaction = Transaction(made, stage, SystemClock(), lambda event: None)
    return await transaction.run(Work(2, SAVED, permit))


@pytest.mark.parametrize("shares_tree", [True, False])
async def test_only_who_runs_from_the_source_can_have_written_a_change_of_it(
        shares_tree: bool) -> None:
    stage = FakeStage(shares_tree)
    outcome = await run(stage, FakeSupervisor())
    assert outcome.verdict is Verdict.COMMITTED
    assert outcome.facts.get("own", False) is shares_tree
    assert ("apply" in stage.calls) is not shares_tree


async def test_what_could_not_be_switched_to_is_taken_out_of_the_tree_again() -> None:
    stage, supervisor = FakeStage(shares_tree=False), FakeSupervisor()
    supervisor.error = PortError("the port is lost")
    outcome = await run(stage, supervisor)
    assert outcome.verdict is Verdict.ROLLED_BACK
    assert outcome.error.message == "the port is lost"
    assert stage.calls[:3] == ["prepare", "apply", "undo"]
    assert "commit" not in stage.calls
