"""The pipeline of one project on one target: batches in, outcomes out.

It decides on plain state (what is in flight, what is dirty, what the source says) and leaves the
I/O to the agent's handle. One generation is in flight at a time; a newer batch supersedes it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.entries import Change
from hyperbox_agent.core.generation import Failure, Outcome, Verdict
from hyperbox_agent.core.halves import SAME_SAVE, is_lone
from hyperbox_agent.core.room import Shortage, left_out
from hyperbox_agent.errors import AgentError, LinkLostError, LinkTimeoutError, WatchError
from hyperbox_agent.watch.source import Batch, Source
from hyperbox_langpacks.base import Rung


@dataclass(frozen=True, slots=True)
class Shipped:
    """What the agent said about a generation, and what was sent for it."""

    outcome: Outcome
    sent: int
    """Bytes of content that crossed the link."""


class AgentHandle(Protocol):
    """The target's agent as the pipeline needs it. Raises LinkLostError when it is gone."""

    async def generation(self, number: int, changes: tuple[Change, ...], *, settled: bool,
                         first: bool) -> Shipped:
        """Ship and run one generation; returns when it is decided."""
        ...

    async def settle(self, number: int) -> None:
        """The batch of ``number`` is complete: it may go live."""
        ...

    async def supersede(self, number: int) -> None:
        """The batch of ``number`` is out of date: it must not go live."""
        ...


class Listener(Protocol):
    """Who wants to know what the pipeline does."""

    def began(self, number: int, batch: Batch) -> None:
        """A generation is on its way."""
        ...

    def ended(self, flight: Flight, shipped: Shipped) -> None:
        """A generation that counts was decided."""
        ...

    def clean(self) -> None:
        """What was refused has been undone: the source is what is live."""
        ...

    def problem(self, message: str, path: str | None, hint: str | None) -> None:
        """Something that the user should know."""
        ...

    def lost(self, error: AgentError) -> None:
        """The agent can't be reached any more."""
        ...


@dataclass(slots=True)
class Flight:
    """A generation on its way."""

    number: int
    batch: Batch
    first: bool
    began: float
    task: asyncio.Task[Shipped]
    settled_at: float | None = None
    superseded: bool = False
    ended_at: float = 0.0
    agent: AgentHandle | None = None


@dataclass(slots=True)
class _Manual:
    """Something that was asked for and must not overlap with a generation."""

    work: Callable[[], Awaitable[Any]]
    done: asyncio.Future[Any] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future())


LOOK_AGAIN = 0.05
PATIENCE = 5
"""A tree that changes all the time must not keep every generation from going live: after this many
complete ones that were superseded in a row the next is let through, and what came meanwhile follows
it."""


class Pipeline:
    """Runs until cancelled. Lives on one event loop."""

    def __init__(self, source: Source, clock: Clock, listener: Listener, *,
                 next_number: int) -> None:
        self.source = source
        self.agent: AgentHandle | None = None
        self.last: Outcome | None = None
        """How the newest generation that counts ended."""
        self._clock = clock
        self._listener = listener
        self._next_number = next_number
        self._first = False
        self._streak = 0
        self._alone_at = -math.inf
        """When a lone file went live, where nothing has since."""
        self._flight: Flight | None = None
        self._waiting: Batch | None = None
        self._manual: list[_Manual] = []
        self._following: asyncio.Future[Batch] | None = None
        """The source's next batch; done from when it is handed out until it is taken."""
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()

    # -- what others ask ----------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a generation is on its way or waits to be."""
        handed_out = self._following is not None and self._following.done()
        return (self._flight is not None or self._waiting is not None or bool(self._manual)
                or handed_out)

    @property
    def flight(self) -> Flight | None:
        """The generation on its way."""
        return self._flight

    def attach(self, agent: AgentHandle | None) -> None:
        """From now on generations go to ``agent``; None: nobody is there, batches wait."""
        self.agent = agent
        self._wake.set()

    def count_from(self, number: int) -> None:
        """The next generation is ``number`` at least: lower ones have been used for others."""
        self._next_number = max(self._next_number, number)

    def start(self, changes: tuple[Change, ...]) -> None:
        """Begin with the first generation: the program isn't running yet."""
        now = self._clock.now()
        self._waiting = Batch(0, changes, True, now, now)
        self._first = True
        self._wake.set()

    async def exclusive(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run ``work`` while no generation is on its way; gives its result or raises its error."""
        manual = _Manual(work)
        self._manual.append(manual)
        self._wake.set()
        return await manual.done

    async def flushed(self) -> Outcome | None:
        """Wait until every save made before now is decided; gives the newest decision."""
        self.source.sync()
        self._wake.set()
        async with self._changed:
            while not self._idle():
                await self._told_or_after(LOOK_AGAIN)
        return self.last

    async def _told_or_after(self, seconds: float) -> None:
        """The source may become quiet without a batch (a file that reads the same again): nobody
        tells of that, so look again after a moment."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            return

    def _idle(self) -> bool:
        return not self.busy and self.source.quiet and self.agent is not None

    # -- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Take batches through the target until cancelled."""
        following: asyncio.Future[Batch] = asyncio.ensure_future(self.source.next())
        try:
            while True:
                self._following = following = self._take(following)
                await self._advance()
                await self._tell_changed()
                await self._something(following)
        finally:
            following.cancel()
            if self._flight is not None:
                self._flight.task.cancel()

    async def _something(self, following: asyncio.Future[Batch]) -> None:
        if self._wake.is_set():
            self._wake.clear()
            return
        waker = asyncio.ensure_future(self._wake.wait())
        awaited: set[asyncio.Future[Any]] = {following, waker}
        if self._flight is not None:
            awaited.add(self._flight.task)
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waker.cancel()
        self._wake.clear()

    def _take(self, following: asyncio.Future[Batch]) -> asyncio.Future[Batch]:
        """Collect what the source has; the newest batch wins."""
        if not following.done():
            return following
        try:
            self._waiting = following.result()
        except WatchError as error:
            self._listener.problem(error.message, error.file, error.hint)
        return asyncio.ensure_future(self.source.next())

    async def _advance(self) -> None:
        if self._flight is not None and self._flight.task.done():
            self._land(self._flight)
        if self._flight is not None:
            await self._steer(self._flight)
        elif self._manual:
            await self._do(self._manual.pop(0))
            self._wake.set()
        elif self._waiting is not None and self.agent is not None and self._is_ripe(self._waiting):
            self._launch(self.agent, self._waiting)

    def _is_ripe(self, batch: Batch) -> bool:
        """Whether to begin with it. What follows a lone file at once must not wait for calm: that
        file has gone live alone, and the target keeps it from answering as soon as it hears."""
        alone = self._clock.now() - self._alone_at < SAME_SAVE
        return batch.calm or self._first or alone

    async def _do(self, manual: _Manual) -> None:
        try:
            result = await manual.work()
        except (AgentError, OSError) as error:
            if not manual.done.done():
                manual.done.set_exception(error)
        else:
            if not manual.done.done():
                manual.done.set_result(result)

    async def _steer(self, flight: Flight) -> None:
        """A newer batch came while one is on its way: let that go on, or take it back."""
        batch = self._waiting
        if batch is None or flight.superseded or self.agent is None:
            return
        try:
            if batch.settled and batch.changes == flight.batch.changes:
                self._waiting = None
                flight.batch = batch
                flight.settled_at = self._clock.now()
                await self.agent.settle(flight.number)
            elif batch.changes != flight.batch.changes and (
                    flight.settled_at is None or self._streak < PATIENCE):
                flight.superseded = True
                # Only what was complete counts: a draft that is let through would never be settled.
                self._streak += flight.settled_at is not None
                await self.agent.supersede(flight.number)
            elif not batch.settled:
                self._waiting = None
        except (LinkLostError, LinkTimeoutError):
            # The flight's own task ends with such an error too, and is dealt with there.
            return

    def _launch(self, agent: AgentHandle, batch: Batch) -> None:
        self._waiting = None
        first, self._first = self._first, False
        if not batch.changes and not first:
            if batch.settled and not self.source.pending:
                # What had failed was undone: the source is what is live again.
                self.last = None
                self._listener.clean()
            return
        now = self._clock.now()
        number = self._next_number
        # Nothing answers yet that a first start could be worse than; what is saved during it may
        # come to nothing (the program's own writes), and then no event would ever settle it.
        settled = batch.settled or first
        task = asyncio.ensure_future(agent.generation(
            number, batch.changes, settled=settled, first=first))
        self._flight = Flight(number, batch, first, now, task,
                              settled_at=now if settled else None, agent=agent)
        self._listener.began(number, batch)

    def _land(self, flight: Flight) -> None:
        self._flight = None
        flight.ended_at = self._clock.now()
        try:
            shipped = flight.task.result()
        except (LinkLostError, LinkTimeoutError) as error:
            # It may have gone live unseen: what is sent again is not called the same.
            self._next_number = flight.number + 1
            self._first = self._first or flight.first
            self._waiting = self._waiting or flight.batch
            if self.agent is flight.agent:  # else its successor is attached already
                self.agent = None
            self._listener.lost(error)
            return
        except (AgentError, OSError) as error:
            shipped = Shipped(_refused(flight.number, error), 0)
        self._decide(flight, shipped)

    def _decide(self, flight: Flight, shipped: Shipped) -> None:
        outcome = shipped.outcome
        counts = flight.settled_at is not None
        if counts:
            self.count_from(flight.number + 1)
        if outcome.verdict is Verdict.COMMITTED:
            self._alone_at = flight.ended_at if is_lone(flight.batch.changes) else -math.inf
            self.source.accept(flight.batch.changes)
            if self.source.pending and self._waiting is None:
                # Something was edited back to what was live before: no event tells of it again.
                self.source.poke()
        if outcome.verdict is not Verdict.SUPERSEDED:
            self._streak = 0
        if outcome.verdict is Verdict.SUPERSEDED or flight.superseded:
            self._renew(flight, again=outcome.verdict is Verdict.SUPERSEDED)
        if counts:
            self._leave_out(flight, outcome)
            self.last = outcome
            self._listener.ended(flight, shipped)

    def _leave_out(self, flight: Flight, outcome: Outcome) -> None:
        """What the target has no room for must not keep the rest of the batch, or the next ones."""
        shortage = Shortage.from_facts(outcome.facts)
        if outcome.error is None or shortage is None:
            return
        waiting = left_out(flight.batch.changes, shortage)
        if not waiting:
            return
        self.source.hold(waiting, f"waits for room on the target: {outcome.error.message}")
        self._renew(flight, again=True)

    def _renew(self, flight: Flight, *, again: bool) -> None:
        """What waits was computed before this outcome: look at what is dirty now.

        ``again``: the flight itself did not go live, so a first start is still to be made.
        """
        waiting = self._waiting
        self._first = self._first or (flight.first and again)
        if waiting is None:
            # The agent saw a newer file before we did; its event may be lost in a touch.
            if flight.first:
                batch = flight.batch
                self._waiting = Batch(batch.serial, self.source.changes(), True,
                                      batch.first_event, batch.last_event)
            self.source.poke()
            return
        changes = self.source.changes()
        drafted = not waiting.settled and waiting.changes == changes
        if not self.source.quiet and not self._first and not drafted:
            # More was seen since, perhaps half of a checkout: its own batch holds all of this too.
            self._waiting = None
            return
        self._waiting = replace(waiting, changes=changes)

    async def _tell_changed(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _refused(number: int, error: AgentError | OSError) -> Outcome:
    """An error on the way to the target is a rolled-back generation: nothing went live."""
    if isinstance(error, AgentError):
        failure = Failure("ship", error.message, error.file, error.line, error.hint)
    else:
        failure = Failure("ship", error.strerror or str(error), error.filename)
    return Outcome(number, Verdict.ROLLED_BACK, Rung.NOTHING, "", {}, failure)


def timings(flight: Flight, outcome: Outcome) -> tuple[Mapping[str, float], float]:
    """The phases as they are shown and the whole, in ms: from the first event to the decision."""
    batch = flight.batch
    settled = flight.settled_at if flight.settled_at is not None else flight.ended_at
    ms = {"settle": max(0.0, settled - batch.first_event) * 1000, **outcome.ms}
    return ms, (flight.ended_at - batch.first_event) * 1000
