"""The pipeline against a scripted source and a scripted agent: what supersedes what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.generation import Failure, Outcome, Verdict
from hyperbox_agent.errors import AgentError, LinkLostError
from hyperbox_agent.supervise.pipeline import PATIENCE, Flight, Pipeline, Shipped
from hyperbox_agent.watch.source import Batch
from hyperbox_langpacks.base import Rung


def change(path: str, content: str) -> Change:
    return Change(path, None, Entry(path, Kind.FILE, size=1, digest=content.encode().ljust(32)))


class ScriptedSource:
    """Gives the batches it is told to give; remembers what is dirty, as the real one does."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Batch] = asyncio.Queue()
        self.dirty: dict[str, Change] = {}
        self.serial = 0
        self.quiet = True

    def save(self, *changes: Change, settled: bool = True, calm: bool = True) -> None:
        self.serial += 1
        self.dirty.update({item.path: item for item in changes})
        self.queue.put_nowait(Batch(self.serial, self.changes(), settled, 0.0, 0.0, calm))

    def changes(self) -> tuple[Change, ...]:
        return tuple(self.dirty[path] for path in sorted(self.dirty))

    def undo(self, path: str) -> None:
        del self.dirty[path]
        self.serial += 1
        self.queue.put_nowait(Batch(self.serial, self.changes(), True, 0.0, 0.0))

    def accept(self, changes: tuple[Change, ...]) -> None:
        for item in changes:
            if self.dirty.get(item.path) == item:
                del self.dirty[item.path]

    def poke(self) -> None:
        if self.dirty:
            self.save(settled=True)

    @property
    def pending(self) -> int:
        return len(self.dirty)

    def sync(self) -> None:
        pass

    async def next(self) -> Batch:
        return await self.queue.get()


class ScriptedAgent:
    """Decides when it is told to, and follows settle and supersede."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[int] = asyncio.Queue()
        self.requests: list[tuple[int, tuple[Change, ...], bool, bool]] = []
        self.verdicts: dict[int, asyncio.Future[Outcome]] = {}
        self.running = 0
        self.most_running = 0
        self.settled: list[int] = []

    async def generation(self, number: int, changes: tuple[Change, ...], *, settled: bool,
                         first: bool) -> Shipped:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.requests.append((number, changes, settled, first))
        self.verdicts[number] = asyncio.get_running_loop().create_future()
        self.started.put_nowait(number)
        try:
            return Shipped(await self.verdicts[number], 0)
        finally:
            self.running -= 1

    def decide(self, number: int, verdict: Verdict, error: Failure | None = None) -> None:
        self.verdicts[number].set_result(
            Outcome(number, verdict, Rung.WARM, "because", {}, error, number))

    def lose(self, number: int) -> None:
        self.verdicts[number].set_exception(LinkLostError("gone"))

    async def settle(self, number: int) -> None:
        self.settled.append(number)

    async def supersede(self, number: int) -> None:
        if not self.verdicts[number].done():
            self.decide(number, Verdict.SUPERSEDED)


class Ears:
    def __init__(self) -> None:
        self.ends: list[tuple[int, Verdict]] = []
        self.problems: list[str] = []
        self.losses = 0
        self.cleaned = 0

    def began(self, number: int, batch: Batch) -> None:
        pass

    def ended(self, flight: Flight, shipped: Shipped) -> None:
        self.ends.append((flight.number, shipped.outcome.verdict))

    def clean(self) -> None:
        self.cleaned += 1

    def problem(self, message: str, path: str | None, hint: str | None) -> None:
        self.problems.append(message)

    def lost(self, error: AgentError) -> None:
        self.losses += 1


class Bench:
    def __init__(self) -> None:
        self.source = ScriptedSource()
        self.agent = ScriptedAgent()
        self.ears = Ears()
        self.pipeline = Pipeline(self.source, SystemClock(), self.ears, next_number=1)  # type: ignore[arg-type]
        self.pipeline.attach(self.agent)

    async def started(self) -> int:
        return await asyncio.wait_for(self.agent.started.get(), 30)

    async def flushed(self) -> Outcome | None:
        return await asyncio.wait_for(self.pipeline.flushed(), 30)


@pytest.fixture
async def bench() -> Any:
    made = Bench()
    runner = asyncio.ensure_future(made.pipeline.run())
    yield made
    runner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await runner


async def test_a_settled_batch_is_one_generation_and_is_accepted(bench: Bench) -> None:
    bench.source.save(change("a.py", "1"))
    assert await bench.started() == 1
    bench.agent.decide(1, Verdict.COMMITTED)
    await bench.flushed()
    assert bench.ears.ends == [(1, Verdict.COMMITTED)]
    assert not bench.source.dirty


async def test_an_unsettled_batch_goes_live_only_when_it_is_settled(bench: Bench) -> None:
    bench.source.save(change("a.py", "1"), settled=False)
    assert await bench.started() == 1
    assert bench.agent.requests[0][2] is False
    bench.source.save(settled=True)
    while not bench.agent.settled:
        await asyncio.sleep(0)
    bench.agent.decide(1, Verdict.COMMITTED)
    await bench.flushed()
    assert bench.ears.ends == [(1, Verdict.COMMITTED)]
    assert len(bench.agent.requests) == 1


async def test_a_draft_that_grew_gives_its_number_to_the_next(bench: Bench) -> None:
    bench.source.save(change("a.py", "1"), settled=False)
    assert await bench.started() == 1
    bench.source.save(change("b.py", "1"), settled=True)
    assert await bench.started() == 1
    bench.agent.decide(1, Verdict.COMMITTED)
    await bench.flushed()
    assert bench.ears.ends == [(1, Verdict.COMMITTED)]
    assert [item.path for item in bench.agent.requests[1][1]] == ["a.py", "b.py"]


async def test_files_that_still_come_end_what_is_begun_and_begin_nothing(bench: Bench) -> None:
    bench.source.quiet = False
    bench.source.save(change("a.py", "1"), settled=False)
    assert await bench.started() == 1
    bench.source.save(change("b.py", "1"), settled=False, calm=False)
    while bench.agent.running:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.agent.started.empty()
    bench.source.save(settled=False)
    assert await bench.started() == 1
    assert [item.path for item in bench.agent.requests[1][1]] == ["a.py", "b.py"]
    bench.source.quiet = True
    bench.source.save()
    while not bench.agent.settled:
        await asyncio.sleep(0)
    bench.agent.decide(1, Verdict.COMMITTED)
    await bench.flushed()
    assert bench.ears.ends == [(1, Verdict.COMMITTED)]


async def test_what_follows_a_lone_file_is_begun_at_once_however_much_still_comes(
        bench: Bench) -> None:
    bench.source.save(change("a.py", "1"))
    assert await bench.started() == 1
    bench.agent.decide(1, Verdict.COMMITTED)
    while not bench.ears.ends:
        await asyncio.sleep(0)
    bench.source.quiet = False
    bench.source.save(change("b.py", "1"), change("c.py", "1"), settled=False, calm=False)
    assert await bench.started() == 2
    bench.source.save(change("d.py", "1"), settled=False, calm=False)
    while bench.agent.running:
        await asyncio.sleep(0)
    bench.source.quiet = True
    bench.source.save()
    assert await bench.started() == 2
    assert [item.path for item in bench.agent.requests[-1][1]] == ["b.py", "c.py", "d.py"]
    bench.agent.decide(2, Verdict.COMMITTED)
    await bench.flushed()


async def test_a_settled_generation_that_is_superseded_keeps_its_number(bench: Bench) -> None:
    bench.source.save(change("a.py", "1"))
    assert await bench.started() == 1
    bench.source.save(change("a.py", "2"))
    assert await bench.started() == 2
    bench.agent.decide(2, Verdict.COMMITTED)
    await bench.flushed()
    assert bench.ears.ends == [(1, Verdict.SUPERSEDED), (2, Verdict.COMMITTED)]


async def test_a_rolled_back_batch_stays_dirty_and_goes_with_the_next(bench: Bench) -> None:
    bench.source.save(change("a.py", "broken"))
    await bench.started()
    bench.agent.decide(1, Verdict.ROLLED_BACK, Failure("gate", "no", "a.py", 3))
    outcome = await bench.flushed()
    assert outcome is not None
    assert outcome.verdict is Verdict.ROLLED_BACK
    bench.source.save(change("b.py", "1"))
    assert await bench.started() == 2
    assert [item.path for item in bench.agent.requests[1][1]] == ["a.py", "b.py"]
    bench.agent.decide(2, Verdict.COMMITTED)
    await bench.flushed()
    assert not bench.source.dirty


async def test_an_endless_writer_does_not_keep_everything_from_going_live(bench: Bench) -> None:
    bench.source.save(change("a.log", "0"))
    number = await bench.started()
    for index in range(PATIENCE):
        bench.source.save(change("a.log", str(index + 1)))
        number = await bench.started()
    bench.source.save(change("a.log", "last"))
    await asyncio.sleep(0)
    bench.agent.decide(number, Verdict.COMMITTED)
    following = await bench.started()
    assert following == number + 1
    bench.agent.decide(following, Verdict.COMMITTED)
    await bench.flushed()
    assert (number, Verdict.COMMITTED) in bench.ears.ends
    assert not bench.source.dirty


async def test_a_draft_is_never_let_through_in_the_place_of_what_is_complete(
        bench: Bench) -> None:
    for index in range(PATIENCE + 1):
        bench.source.save(change("a.log", str(index + 1)), settled=False)
        number = await bench.started()
    bench.source.save(change("a.log", "last"))
    assert await bench.started() == number
    assert bench.agent.requests[-1][1] == (change("a.log", "last"),)
    bench.agent.decide(number, Verdict.COMMITTED)
    await bench.flushed()
    assert not bench.source.dirty


async def test_a_lost_link_loses_no_save(bench: Bench) -> None:
    bench.source.save(change("a.py", "1"))
    await bench.started()
    bench.agent.lose(1)
    while not bench.ears.losses:
        await asyncio.sleep(0)
    bench.source.save(change("b.py", "1"))
    bench.pipeline.attach(bench.agent)
    # It may have gone live unseen, so what is sent again has a number of its own.
    assert await bench.started() == 2
    bench.agent.decide(2, Verdict.COMMITTED)
    await bench.flushed()
    assert [item.path for item in bench.agent.requests[-1][1]] == ["a.py", "b.py"]


async def test_what_is_asked_for_by_hand_waits_for_the_generation_on_its_way(bench: Bench) -> None:
    bench.source.save(change("a.py", "1"))
    await bench.started()
    order: list[str] = []

    async def work() -> str:
        order.append("manual")
        return "done"

    asked = asyncio.ensure_future(bench.pipeline.exclusive(work))
    await asyncio.sleep(0.01)
    assert order == []
    bench.agent.decide(1, Verdict.COMMITTED)
    assert await asyncio.wait_for(asked, 30) == "done"
    assert bench.agent.most_running == 1


async def test_flush_waits_for_a_save_in_flight(bench: Bench) -> None:
    bench.source.save(change("a.py", "1"))
    await bench.started()
    flush = asyncio.ensure_future(bench.pipeline.flushed())
    await asyncio.sleep(0.01)
    assert not flush.done()
    bench.agent.decide(1, Verdict.COMMITTED)
    outcome = await asyncio.wait_for(flush, 30)
    assert outcome is not None
    assert outcome.number == 1


async def test_a_broken_edit_that_is_undone_is_no_error_any_more(bench: Bench) -> None:
    bench.source.save(change("a.py", "broken"))
    await bench.started()
    bench.agent.decide(1, Verdict.ROLLED_BACK, Failure("gate", "no", "a.py", 3))
    await bench.flushed()
    bench.source.undo("a.py")
    while not bench.ears.cleaned:
        await asyncio.sleep(0)
    assert await bench.flushed() is None
    assert len(bench.agent.requests) == 1


async def test_a_first_start_never_waits_for_a_batch_that_came_to_nothing(bench: Bench) -> None:
    bench.pipeline.start(())
    assert await bench.started() == 1
    bench.source.save(change("own.log", "1"), settled=False)
    # The program's own writes: they are taken back before the superseded start is made again.
    bench.source.dirty.clear()
    assert await bench.started() == 2
    assert bench.agent.requests[-1][1:] == ((), True, True)
    bench.agent.decide(2, Verdict.COMMITTED)
    await bench.flushed()
    assert bench.ears.ends[-1] == (2, Verdict.COMMITTED)
