"""One generation's way, with a supervisor and a stage that tell what was asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.generation import Verdict
from hyperbox_agent.core.halves import COMPANY, SAME_SAVE, Lone, is_rest_of, not_before
from hyperbox_agent.errors import PortError
from hyperbox_agent.supervise.supervisor import Reloaded
from hyperbox_agent.supervise.transaction import Permit, Transaction, Work
from hyperbox_langpacks.base import Rung, RungChoice

SAVED = (Change("state.json", None, Entry("state.json", Kind.FILE, digest=b"1" * 32)),)


class FakeStage:
    def __init__(self, shares_tree: bool) -> None:
        self.shares_tree = shares_tree
        self.calls: list[str] = []

    def check_base(self, work: Work) -> None:
        pass

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
    healthy = True

    def __init__(self, stage: FakeStage | None = None) -> None:
        self.calls = stage.calls if stage is not None else []
        self.asked: list[str] = []

    async def step_back(self) -> bool:
        self.asked.append("back")
        return True

    async def step_forward(self) -> None:
        self.asked.append("forward")

    def wrote(self, path: str, since: float) -> bool:
        return True

    async def gate(self, files: object) -> tuple[()]:
        return ()

    def choose(self, changes: object, *, first: bool = False) -> RungChoice:
        return RungChoice(Rung.COLD, "a test")

    async def reload(self, number: int, choice: RungChoice, *, root: str,
                     permit: Callable[[], Awaitable[bool]],
                     taken_back: Callable[[], Awaitable[None]], keep_old: bool) -> Reloaded:
        if self.error is not None:
            raise self.error
        self.asked.append(f"keep_old={keep_old}")
        permitted = await permit()
        return Reloaded(permitted and self.healthy, not permitted, choice.rung, choice.why)

    async def revive(self) -> bool:
        self.calls.append("revive")
        return True


@pytest.mark.parametrize(("took", "waits"), [
    (0.010, 0.003), (0.020, 0.006), (0.025, COMPANY - 0.025), (0.040, 0.0)])
def test_a_lone_file_waits_for_company_less_than_half_of_what_it_took(
        took: float, waits: float) -> None:
    assert max(0.0, not_before(100.0, 100.0 + took) - 100.0 - took) == pytest.approx(waits)


def changed(*paths: str) -> tuple[Change, ...]:
    return tuple(Change(path, None, Entry(path, Kind.FILE, digest=b"1" * 32)) for path in paths)


@pytest.mark.parametrize(("paths", "after", "rest"), [
    (("b.py",), 0.0, True), (("b.py", "c.py"), SAME_SAVE / 2, True),
    (("a.py",), 0.0, False), (("a.py", "b.py"), 0.0, False),
    (("b.py",), SAME_SAVE, False), ((), 0.0, False)])
def test_another_file_soon_after_a_lone_one_is_the_rest_of_its_save(
        paths: tuple[str, ...], after: float, rest: bool) -> None:
    assert is_rest_of(Lone("a.py", 100.0), changed(*paths), 100.0 + after) is rest


async def test_the_rest_of_a_save_is_made_beside_the_version_before_its_first_half() -> None:
    supervisor, permit = FakeSupervisor(), Permit()
    made: Any = supervisor
    transaction = Transaction(made, FakeStage(False), SystemClock(), lambda event: None)
    permit.settle()
    await transaction.run(Work(2, changed("a.py"), permit))
    halved, superseded = Permit(), Permit()
    superseded.supersede()
    assert (await transaction.run(Work(3, changed("b.py"), superseded))).verdict is (
        Verdict.SUPERSEDED)
    halved.settle()
    whole = await transaction.run(Work(3, changed("b.py", "c.py"), halved))
    assert whole.verdict is Verdict.COMMITTED
    assert supervisor.asked == ["keep_old=True", "forward", "back", "keep_old=False", "forward"]


class SlowClock(SystemClock):
    """A start on it took long enough to be worth a wait; pauses end when they are told to."""

    def __init__(self) -> None:
        self.at = 0.0
        self.pauses: list[float] = []

    def now(self) -> float:
        self.at += 0.002
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.Event().wait()


async def test_company_that_comes_during_the_wait_takes_it_back() -> None:
    clock, permit, supervisor = SlowClock(), Permit(), FakeSupervisor()
    permit.settle()
    made: Any = supervisor
    transaction = Transaction(made, FakeStage(False), clock, lambda event: None)
    running = asyncio.ensure_future(transaction.run(Work(2, SAVED, permit)))
    while not clock.pauses:
        await asyncio.sleep(0)
    permit.supersede()
    assert (await running).verdict is Verdict.SUPERSEDED
    assert 0 < clock.pauses[0] <= COMPANY


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


@pytest.mark.parametrize("shares_tree", [True, False])
async def test_what_had_to_make_way_is_started_again_once_its_tree_is_back(
        shares_tree: bool) -> None:
    """In place it is the supervisor that knows where the old content is."""
    stage = FakeStage(shares_tree)
    supervisor = FakeSupervisor(stage)
    supervisor.healthy = False
    supervisor.wrote = lambda path, since: False  # type: ignore[method-assign]
    outcome = await run(stage, supervisor)
    assert outcome.verdict is Verdict.ROLLED_BACK
    assert stage.calls == ["prepare", "apply", "undo", *([] if shares_tree else ["revive"])]
