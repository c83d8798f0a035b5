"""One generation on the target: gate, apply, reload, health, commit, or everything as it was.

Two stages answer the same calls: ``InPlace`` (the program runs from the folder that is edited, so
nothing is applied) and ``Mirror`` (the target has a tree of its own).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.entries import Change, Kind
from hyperbox_agent.core.generation import Failure, Outcome, Verdict
from hyperbox_agent.core.halves import Lone, is_lone, is_rest_of, not_before
from hyperbox_agent.core.room import Shortage
from hyperbox_agent.errors import AgentError, MissingBlobsError, NoSpaceError
from hyperbox_agent.supervise.limits import first_of
from hyperbox_agent.supervise.supervisor import Supervisor
from hyperbox_agent.watch.source import OWN
from hyperbox_langpacks.base import FileChange, Rung, RungChoice

T = TypeVar("T")


class Permit:
    """Whether a generation may go live: decided by the side that sees the events.

    A newer save may take it back until the moment in which it is used, so all the time that a new
    version takes to start counts as settle time, too.
    """

    def __init__(self) -> None:
        self._decided = asyncio.Event()
        self._superseded = asyncio.Event()

    def settle(self) -> None:
        """Quiet has come: it may."""
        self._decided.set()

    def supersede(self) -> None:
        """Something newer is there: it must not."""
        self._superseded.set()
        self._decided.set()

    @property
    def refused(self) -> bool:
        """Whether it is already known that this generation won't go live."""
        return self._superseded.is_set()

    async def wait(self) -> bool:
        """True: go live now. False: superseded."""
        await self._decided.wait()
        return not self.refused

    async def taken_back(self) -> None:
        """Return once something newer is there."""
        await self._superseded.wait()


@dataclass(slots=True)
class Work:
    """A generation in progress."""

    number: int
    changes: tuple[Change, ...]
    permit: Permit
    first: bool = False
    """The program isn't running yet: this is its start."""
    highest: Rung = Rung.REBUILD
    lowest: Rung = Rung.NOTHING
    began: float = 0.0
    """When it was begun, by the transaction's clock."""
    blobs: AsyncIterator[bytes] | None = None
    """The content that was shipped with it, as it arrives."""
    base: int | None = None
    """The generation that the changes are against; None: whatever is there."""
    ms: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Stage(Protocol):
    """Where a generation's files are, before and after it is applied."""

    @property
    def shares_tree(self) -> bool:
        """Whether the program runs from the very tree that is edited, so that what it writes
        is a change of the source."""
        ...

    def check_base(self, work: Work) -> None:
        """Raises BaseChangedError where ``work`` is against something else than what is here."""
        ...

    async def prepare(self, work: Work) -> None:
        """Verify what was shipped. Raises AgentError; nothing in the tree has moved."""
        ...

    def gate_files(self, work: Work) -> Sequence[tuple[str, str]]:
        """(path, absolute file to read) of every changed file."""
        ...

    def untouched(self, work: Work) -> bool:
        """Whether what was gated is still what would run."""
        ...

    async def apply(self, work: Work, supervisor: Supervisor) -> str:
        """Put the generation into the tree; gives the root that the new version runs from."""
        ...

    async def undo(self, work: Work, supervisor: Supervisor) -> None:
        """Take an applied generation back."""
        ...

    def commit(self, work: Work) -> None:
        """It is live: remember it."""
        ...

    def discard(self, work: Work) -> None:
        """It won't go live: forget what was staged."""
        ...


def file_changes(changes: Sequence[Change]) -> tuple[FileChange, ...]:
    """Changes as packs see them."""
    return tuple(_file_change(change) for change in changes)


def _file_change(change: Change) -> FileChange:
    shown = change.new or change.old
    if shown is None:
        raise ValueError("a change without an entry")
    what = "deleted" if change.new is None else "added" if change.old is None else "modified"
    return FileChange(change.path, what, shown.kind.value)


def bounded(choice: RungChoice, work: Work) -> RungChoice:
    """The pack's choice within what this generation allows."""
    if choice.rung < work.lowest:
        return RungChoice(work.lowest, f"asked for: {work.lowest.word}")
    if choice.rung > work.highest:
        return RungChoice(work.highest, f"{choice.why}; [reload] rung allows no more")
    return choice


class Transaction:
    """Runs generations one after the other. Lives on one event loop."""

    def __init__(self, supervisor: Supervisor, stage: Stage, clock: Clock,
                 sink: Callable[[Mapping[str, Any]], None]) -> None:
        self._supervisor = supervisor
        self._stage = stage
        self._clock = clock
        self._sink = sink
        self._turn = asyncio.Lock()
        self._now: Work | None = None
        self._lone: Lone | None = None

    @property
    def current(self) -> Work | None:
        """The generation at work now."""
        return self._now

    async def run(self, work: Work) -> Outcome:
        """Take one generation through the phases. Never raises for what a user can cause.

        Raises BaseChangedError: asked only now, since the one before it may have moved the tree.
        MissingBlobsError: the program destroyed what content was to be made of; the sender has it.
        """
        async with self._turn:
            self._stage.check_base(work)
            self._now = work
            work.began = self._clock.now()
            try:
                return await self._beside_a_half(work)
            except MissingBlobsError:
                self._stage.discard(work)
                raise
            except AgentError as error:
                self._stage.discard(work)
                _note_shortage(work, error)
                return self._rolled_back(work, Rung.NOTHING, "", _failure("apply", error))
            finally:
                self._now = None

    async def _beside_a_half(self, work: Work) -> Outcome:
        """Where this is the rest of a save whose first file is live, the version before answers
        until this one does, or comes to nothing."""
        lone, self._lone = self._lone, None
        if lone is not None and is_rest_of(lone, work.changes, work.began) and (
                await self._supervisor.step_back()):
            work.facts["rest_of"] = lone.path
        superseded = False
        try:
            outcome = await self._phases(work)
            superseded = outcome.verdict is Verdict.SUPERSEDED
        finally:
            if not superseded:
                await self._supervisor.step_forward()
        return replace(outcome, serving=self._supervisor.serving)

    async def between(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work`` while no generation is in progress."""
        async with self._turn:
            return await work()

    async def run_from(self, number: int, root: str) -> Outcome:
        """Run an older generation from a tree of its own; the stage stays as it is."""
        return await self._bare(number, root, RungChoice(
            Rung.WARM, f"rolled back to #{number}"))

    async def restart(self, number: int, choice: RungChoice) -> Outcome:
        """Start the same version again from where it runs."""
        return await self._bare(number, self._supervisor.root, choice)

    async def _bare(self, number: int, root: str, choice: RungChoice) -> Outcome:
        async with self._turn:
            permit = Permit()
            permit.settle()
            work = Work(number, (), permit)
            done = await self._supervisor.reload(number, choice, root=root, permit=permit.wait)
            work.ms.update(done.ms)
            work.facts.update(done.facts)
            if done.ok:
                return self._outcome(work, Verdict.COMMITTED, done.rung, done.why, None)
            failure = done.error or Failure("reload", "the version did not start")
            return self._rolled_back(work, done.rung, done.why, failure)

    async def _phases(self, work: Work) -> Outcome:
        with _Timed(self, work, "stage"):
            try:
                await self._stage.prepare(work)
            except MissingBlobsError:
                raise
            except AgentError as error:
                self._stage.discard(work)
                _note_shortage(work, error)
                return self._rolled_back(work, Rung.NOTHING, "", _failure("stage", error))
        if self._own(work):
            if not await work.permit.wait():
                return self._superseded(work)
            work.facts["own"] = True
            return self._outcome(work, Verdict.COMMITTED, Rung.NOTHING,
                                 "written by the program itself", None)
        gated = await self._gate(work)
        if gated is not None:
            # A broken half-save must not be reported: its other half may be on the way.
            if not await work.permit.wait():
                gated = self._superseded(work)
            self._stage.discard(work)
            return gated
        if work.permit.refused:
            self._stage.discard(work)
            return self._superseded(work)
        return await self._reload(work)

    def _own(self, work: Work) -> bool:
        """Whether the running program itself made all of these changes, as its shim told.

        Where it has a tree of its own it can't have: the source changed, so somebody saved.
        """
        if not self._stage.shares_tree:
            return False
        since = self._clock.now() - OWN
        return (not work.first and bool(work.changes)
                and all(self._supervisor.wrote(change.path, since) for change in work.changes))

    async def _gate(self, work: Work) -> Outcome | None:
        if work.first:
            # Nothing answers that could be kept from harm, and starting says what is wrong.
            return None
        with _Timed(self, work, "gate"):
            wrong = await self._supervisor.gate(self._stage.gate_files(work))
        if not wrong:
            return None
        first = wrong[0]
        work.facts["diagnostics"] = len(wrong)
        return self._rolled_back(work, Rung.NOTHING, "the gate found an error", Failure(
            "gate", first.message, first.path, first.line))

    async def _reload(self, work: Work) -> Outcome:
        choice = bounded(self._choose(work), work)
        with _Timed(self, work, "apply"):
            root = await self._stage.apply(work, self._supervisor)
        if work.permit.refused:
            await self._stage.undo(work, self._supervisor)
            return self._superseded(work)
        try:
            done = await self._supervisor.reload(
                work.number, choice, root=root, permit=lambda: self._permitted(work),
                taken_back=work.permit.taken_back, keep_old=is_lone(work.changes))
        except AgentError:
            # It did not go live, so the tree must not keep it either.
            await self._stage.undo(work, self._supervisor)
            raise
        work.ms.update(done.ms)
        work.facts.update(done.facts)
        if done.superseded:
            await self._stage.undo(work, self._supervisor)
            return self._superseded(work)
        if not done.ok:
            await self._stage.undo(work, self._supervisor)
            if not self._stage.shares_tree:
                # Where both must not overlap the old one had to go: only now its tree is there.
                await self._supervisor.revive()
            failure = done.error or Failure("reload", "the new version did not start")
            return self._rolled_back(work, done.rung, done.why, failure)
        self._stage.commit(work)
        if is_lone(work.changes) and done.rung > Rung.NOTIFY:
            self._lone = Lone(work.changes[0].path, self._clock.now())
        return self._outcome(work, Verdict.COMMITTED, done.rung, done.why, None)

    async def _permitted(self, work: Work) -> bool:
        if not await work.permit.wait():
            return False
        now = self._clock.now()
        pause = not_before(work.began, now) - now
        if is_lone(work.changes) and pause > 0:
            await first_of(self._clock, pause, work.permit.taken_back())
        return not work.permit.refused and self._stage.untouched(work)

    def _choose(self, work: Work) -> RungChoice:
        return self._supervisor.choose(file_changes(work.changes), first=work.first)

    def _superseded(self, work: Work) -> Outcome:
        return self._outcome(work, Verdict.SUPERSEDED, Rung.NOTHING, "a newer save came", None)

    def _rolled_back(self, work: Work, rung: Rung, why: str, failure: Failure) -> Outcome:
        return self._outcome(work, Verdict.ROLLED_BACK, rung, why, failure)

    def _outcome(self, work: Work, verdict: Verdict, rung: Rung, why: str,
                 failure: Failure | None) -> Outcome:
        return Outcome(work.number, verdict, rung, why, dict(work.ms), failure,
                       self._supervisor.serving, dict(work.facts))

    def now(self) -> float:
        """This transaction's clock."""
        return self._clock.now()

    def tell(self, event: Mapping[str, Any]) -> None:
        """An event for whoever listens."""
        self._sink(event)


class _Timed:
    """Times one phase into ``work.ms`` and tells that it began."""

    def __init__(self, owner: Transaction, work: Work, phase: str) -> None:
        self._owner = owner
        self._work = work
        self._phase = phase
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = self._owner.now()
        self._owner.tell({"event": "phase", "number": self._work.number, "phase": self._phase})

    def __exit__(self, *exc: object) -> None:
        self._work.ms[self._phase] = (self._owner.now() - self._began) * 1000


def _note_shortage(work: Work, error: AgentError) -> None:
    if isinstance(error, NoSpaceError):
        work.facts["space"] = Shortage(
            error.filesystem, error.need, error.have, error.unit).as_json()


def _failure(phase: str, error: AgentError) -> Failure:
    return Failure(phase, error.message, error.file, error.line, error.hint)


def changed_files(changes: Sequence[Change]) -> list[str]:
    """Paths of the files that a batch adds or changes."""
    return [change.path for change in changes
            if change.new is not None and change.new.kind is Kind.FILE]
