"""A session: one project kept live on one target. What the verbs talk to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.generation import Failure, Outcome, State, Verdict
from hyperbox_agent.core.pulls import PullRules
from hyperbox_agent.errors import AgentError, LinkLostError, LinkTimeoutError
from hyperbox_agent.link.messages import Configured
from hyperbox_agent.supervise.pipeline import Flight, Pipeline, Shipped, timings
from hyperbox_agent.watch.source import Batch, Source
from hyperbox_devcontainer.errors import HostileTargetError, WorkstationError
from hyperbox_devcontainer.history import History
from hyperbox_devcontainer.session import events, told
from hyperbox_devcontainer.session.base import Base
from hyperbox_devcontainer.session.connection import Connection
from hyperbox_devcontainer.session.execution import RemoteCommand
from hyperbox_devcontainer.session.held import Held
from hyperbox_devcontainer.session.missing import Missing
from hyperbox_devcontainer.session.options import SessionOptions
from hyperbox_devcontainer.session.pulling import Pulling
from hyperbox_devcontainer.session.settings import name_changed_settings
from hyperbox_devcontainer.session.view import TargetView
from hyperbox_devcontainer.verbs.session import ByteChannel, ExecRequest
from hyperbox_langpacks.base import Rung

OnEvent = Callable[[Mapping[str, Any]], None]

STOP_TIMEOUT = 20.0
VERB_TIMEOUT = 60.0
SILENT = 5.0
"""Seconds without a sign of life after which a target counts as gone for whoever asks. A busy one
is silent for a moment; the link is given up much later."""
RECENT = 50
"""Generations that are looked through for what a target held."""


class Session:
    """Implements what the verbs need (``verbs/session.py``). Lives on one event loop."""

    def __init__(self, options: SessionOptions, source: Source, base: Base, history: History,
                 connection: Connection, clock: Clock, on_event: OnEvent,
                 config: Mapping[str, Any]) -> None:
        self.options = options
        self.view = TargetView(options.target, options.kind, options.mode)
        self._source = source
        self._base = base
        self._history = history
        self._connection = connection
        self._clock = clock
        self._on_event = on_event
        self._config = config
        self._pipeline = Pipeline(source, clock, self, next_number=history.last_number() + 1)
        self._tasks: list[asyncio.Task[None]] = []
        self._pulled_here = rules = PullRules(options.pull if options.mode == "mirror" else ())
        self._pulling = Pulling(rules, options.target, source, self.problem,
                                self._pulled) if rules else None
        self._live: int | None = None
        self._held = Held(options.state_dir, options.target)
        self._missing = Missing(source.tree, options.target, self.problem)

    # -- life ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Reach the target, take over what runs there or start it, and keep it live from now on.

        Raises AgentError or WorkstationError where the target can't be reached at all.
        """
        self._report_problems()
        await self._connect()
        self._tasks = [asyncio.ensure_future(self._pipeline.run()),
                       asyncio.ensure_future(self._stay_connected()),
                       asyncio.ensure_future(self._base.run())]
        if self._pulling is not None:
            self._tasks.append(asyncio.ensure_future(
                self._pulling.run(self._connection.link, self._pipeline.exclusive)))

    async def _connect(self) -> None:
        agent, ready = await self._connection.open(
            self._source, self._base, self._on_agent_event, self._begin, self._pulling)
        self._detected(told.detection(ready.facts))
        await self._begin(ready)
        self._pipeline.attach(agent)

    async def _begin(self, ready: Configured) -> None:
        """Go on from what the target holds, whatever was believed of it before."""
        if ready.state == "recreated" or (ready.state == "new" and self._filled()):
            self._recreated([path for path in ready.facts.get("foreign", ())
                             if path not in self._source.tree.manifest])
        # A session that was killed may have no record of what it had brought there.
        kept = await self._base.kept()
        self._pipeline.count_from(1 + max((ready.number, ready.serving or 0, *kept)))
        start = self._base.converge(ready, self._source)
        self._live = ready.serving
        if await self._is_held(ready, kept, running=start is None):
            return
        if start is not None:
            self._pipeline.start(start)
        elif self._source.pending:
            self._source.poke()

    async def _is_held(self, ready: Configured, kept: Sequence[int], *, running: bool) -> bool:
        """Whether the target was rolled back and nothing was saved since: then that version goes
        on, or is started again where it ended too."""
        number = self._held.number
        if number is None or number not in kept or ready.serving not in (None, number) \
                or not self._held.holds(self._source.tree.manifest):
            return False
        if running:
            return True
        try:
            await self._go_back(number)
        except LinkLostError:
            raise
        except AgentError as error:
            self.problem(f"#{number}, which was rolled back to, does not start again: "
                         f"{error.message}", error.file, error.hint)
            return False
        return True

    def _filled(self) -> bool:
        """Whether a generation of ours went live there before, so that nothing there is a loss."""
        return self.options.mode == "mirror" and any(
            row.get("target") == self.options.target and row.get("verdict") == "committed"
            for row in self._history.latest(RECENT))

    def _recreated(self, foreign: Sequence[str]) -> None:
        self.problem("the target was recreated: everything is sent anew", None, None)
        if foreign:
            named = ", ".join(map(str, foreign[:5])) + (", …" if len(foreign) > 5 else "")
            self.problem(f"{self.options.target} holds what is not of this project, and keeps it: "
                         f"{named}", str(foreign[0]), None)

    async def _stay_connected(self) -> None:
        """Whenever the link is lost, find the agent again or start a new one that adopts."""
        while True:
            await self._connection.lost()
            self._pipeline.attach(None)
            self._state(State.OFFLINE, self._live)
            pause = 0.1
            while True:
                try:
                    await self._connect()
                    break
                except HostileTargetError:
                    raise
                except (AgentError, WorkstationError) as error:
                    self.problem(f"{self.options.target} can't be reached: {error.message}",
                                 None, error.hint)
                    await self._clock.sleep(pause)
                    pause = min(pause * 2, 5.0)

    async def wait(self) -> None:
        """Return or raise when the session can't go on by itself; else never."""
        await asyncio.gather(*self._tasks)

    async def abandon(self) -> None:
        """Opening failed: leave nothing behind that this session started."""
        await self._connection.abandon()
        if not self._connection.adopted:
            await self._connection.stop_if_linked(timeout=STOP_TIMEOUT)
        await self._leave()

    async def stop(self, *, fast: bool = False) -> None:
        """End everything that the session started, agent included."""
        await self._connection.stop(fast=fast, timeout=STOP_TIMEOUT)
        self._held.over()
        await self._leave()
        await self._base.ended()
        if self.view.state is not State.DOWN:
            self._state(State.DOWN, None)

    async def detach(self) -> None:
        """Let go: agent and program go on without this process."""
        await self._connection.close()
        await self._leave()

    async def _leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._source.close()
        self._base.close()
        self._history.close()
        await self._connection.close()

    # -- what the pipeline tells --------------------------------------------------------------

    def began(self, number: int, batch: Batch) -> None:
        """A generation is on its way."""
        self._tell({"event": "began", "project": self.options.project,
                    "target": self.options.target, "number": number,
                    "settled": batch.settled, "files": len(batch.changes)})

    def ended(self, flight: Flight, shipped: Shipped) -> None:
        """A generation was decided."""
        outcome = shipped.outcome
        ms, total = timings(flight, outcome)
        event = events.generation_event(
            self.options.project, self.options.target, replace(outcome, ms=ms),
            flight.batch.changes, sent=shipped.sent, total_ms=total,
            extra={"first": True} if flight.first else {})
        if outcome.verdict is Verdict.COMMITTED:
            self._live = outcome.number
        if outcome.serving is not None:
            self._live = outcome.serving
        self._remember(event, outcome, flight)
        self._tell(event)
        self._say_what_stood_there(outcome)
        name_changed_settings(self.options.root, flight, outcome, self.problem)
        if outcome.verdict is Verdict.ROLLED_BACK:
            state = State.LIVE if outcome.serving is not None else State.BROKEN
            self._state(state, outcome.serving)

    def _say_what_stood_there(self, outcome: Outcome) -> None:
        """The save took the place of what the program, or somebody else, had put into the tree."""
        kept = outcome.facts.get("kept")
        if outcome.verdict is not Verdict.COMMITTED or not isinstance(kept, dict):
            return
        # Of what is pulled the source has the other version already.
        named = [path for path in kept if not self._pulled_here(path, is_dir=False)]
        if named:
            path, where = named[0], kept[named[0]]
            more = f" and {len(named) - 1} more" if len(named) > 1 else ""
            self.problem(f"{self.options.target} held another {path}{more}: what stood there is "
                         f"kept until #{outcome.number} is forgotten", path, where)

    def _remember(self, event: Mapping[str, Any], outcome: Outcome, flight: Flight) -> None:
        """Archive and history. A full disk costs the way back, never the program or the session."""
        try:
            if outcome.verdict is Verdict.COMMITTED:
                self._held.over()
                self._base.committed(outcome.number, flight.batch.changes)
            self._history.append(event)
        except (AgentError, WorkstationError) as error:
            self._not_remembered(outcome.number, error)

    def _not_remembered(self, number: int, error: AgentError | WorkstationError) -> None:
        self.problem(f"#{number} could not be remembered: {error.message}", error.file, error.hint)

    def clean(self) -> None:
        """What was refused, or rolled back, has been undone: the error is over."""
        self._held.over()
        if self.view.error is not None:
            self.view.error = None
            self._state(self.view.state, self._live)

    def problem(self, message: str, path: str | None, hint: str | None) -> None:
        """Something that the user should know and that stopped nothing."""
        event = events.problem_event(self.options.project, self.options.target, message,
                                     path=path, hint=hint)
        if self.view.problems.get(message) == event:
            return
        self.view.problems[message] = event
        self._tell(event)

    def lost(self, error: AgentError) -> None:
        """The link broke under a generation: it is dirty and goes again on return."""
        self._connection.report(error)

    def _report_problems(self) -> None:
        if self._history.moved_aside is not None:
            self.problem("the history was damaged and is begun anew; what it was is kept",
                         self._history.moved_aside, None)
        for problem in self._source.tree.problems.values():
            self.problem(problem.message, problem.path, problem.hint or None)
        watcher = self._source.watcher
        for problem in (watcher.problems if watcher else {}).values():
            self.problem(problem.message, problem.path, problem.hint or None)

    # -- events -------------------------------------------------------------------------------

    def _on_agent_event(self, event: Mapping[str, Any]) -> None:
        taken = told.taken(event)
        if taken is None:
            return
        kind = taken["event"]
        mirrored = self.options.mode == "mirror"
        if kind == "log":
            self._tell(events.log_event(self.options.project, self.options.target, taken))
        elif kind == "written":
            if self._pulling is not None:
                self._pulling.wake()
        elif kind == "wrote":
            # A mirrored target's program writes its own tree: what changes here is a save.
            if not mirrored:
                self._source.own(taken.get("paths", ()))
        elif kind == "missing":
            if mirrored:
                self._missing.opened(taken["path"])
        elif kind == "detection":
            self._detected(taken)
        elif kind == "state":
            self._live = taken.get("number") if taken["state"] == "live" else self._live
            self.view.url = taken.get("url") or self.view.url
            self.view.pid = taken.get("pid")
            self._state(State(taken["state"]), taken.get("number"))
        else:
            self._tell({**taken, "project": self.options.project, "target": self.options.target})

    def _detected(self, found: Mapping[str, Any]) -> None:
        """What is run: known when the target answers, or when the first version stands there."""
        if found:
            self.view.notes = list(found.get("notes", ()))
            self._tell({**found, "project": self.options.project, "target": self.options.target})

    def _pulled(self, paths: Sequence[str]) -> None:
        self._tell(events.pulled_event(self.options.project, self.options.target, paths))

    def _state(self, state: State, number: int | None) -> None:
        error = self.view.error if state in (State.LIVE, State.BROKEN) else None
        self._tell(events.state_event(
            self.options.project, self.options.target, state, number,
            url=self.view.url, pid=self.view.pid if state is State.LIVE else None, error=error))

    def _tell(self, event: Mapping[str, Any]) -> None:
        self.view.take(event)
        self._on_event(event)

    # -- verbs --------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """A project of ``status --json``."""
        self._report_problems()
        counts = self._source.tree.counts
        return {"name": self.options.project, "path": self.options.root,
                "files": counts.files, "bytes": counts.bytes,
                "watcher": self._source.watcher.name if self._source.watcher else None,
                "targets": [self.view.as_json(
                    self._source.pending, self._passing(), held=self._held.number,
                    silent=self._connection.silence() > SILENT)]}

    def _passing(self) -> list[dict[str, Any]]:
        """What is wrong just now and is not worth a word when it is over."""
        project, target = self.options.project, self.options.target
        found = [events.problem_event(project, target, f"{path} {why}", path=path)
                 for path, why in self._source.held.items()]
        silence = self._connection.silence()
        if silence > SILENT:
            found.append(events.problem_event(
                project, target, f"{target} has given no sign of life for {silence:.0f} s"))
        return found

    def config(self) -> dict[str, Any]:
        """The configuration that the session runs with."""
        return dict(self._config)

    def history(self, limit: int) -> list[dict[str, Any]]:
        """The last generations, newest first."""
        return self._history.latest(limit)

    async def flush(self, timeout: float) -> dict[str, Any]:
        """Return when every save made before now is committed or rolled back."""
        began = self._clock.now()
        try:
            outcome = await asyncio.wait_for(self._flushed(), timeout)
        except asyncio.TimeoutError as error:
            raise self._too_late(timeout) from error
        newest: dict[str, Any] = {"name": self.options.target, "number": None, "verdict": None,
                                  "serving": self._live, "error": None}
        if outcome is not None:
            newest |= {"number": outcome.number, "verdict": outcome.verdict.value,
                       "error": outcome.error.as_json() if outcome.error else None}
        return {"ms": round((self._clock.now() - began) * 1000, 3), "targets": [newest]}

    async def _flushed(self) -> Outcome | None:
        """All is decided and the target is there: nothing to do is no proof of that."""
        while True:
            outcome = await self._pipeline.flushed()
            try:
                await self._connection.link().ping(VERB_TIMEOUT)
                return outcome
            except (LinkLostError, LinkTimeoutError):
                await self._clock.sleep(0.05)  # it is noticed there too, and connected anew

    def _too_late(self, timeout: float) -> LinkTimeoutError:
        name = self.options.target
        if self.view.state is State.OFFLINE:
            return LinkTimeoutError(f"{name} is gone: its saves wait ({self._source.pending} "
                                    f"paths)", hint="hyperbox status")
        if self._connection.silence() > min(timeout / 2, SILENT):
            return LinkTimeoutError(f"{name} does not answer: its saves wait "
                                    f"({self._source.pending} paths)", hint="hyperbox status")
        if self._source.paused:
            return LinkTimeoutError(f"{name} is paused", hint="hyperbox resume")
        return LinkTimeoutError(f"{name} did not finish within {timeout:g} s",
                                hint="hyperbox status shows the phase it is in")

    async def rollback(self, number: int | None) -> dict[str, Any]:
        """Make an older generation live."""
        result: dict[str, Any] = await self._pipeline.exclusive(lambda: self._roll_back(number))
        return result

    async def _roll_back(self, number: int | None) -> dict[str, Any]:
        wanted = self._wanted(number, await self._base.kept())
        if wanted == self._live and self.view.state is State.LIVE:
            return self._answers_already(wanted)
        return await self._go_back(wanted)

    def _answers_already(self, number: int) -> dict[str, Any]:
        outcome = Outcome(number, Verdict.COMMITTED, Rung.NOTHING,
                          f"#{number} answers already: nothing was done", serving=number)
        return events.generation_event(
            self.options.project, self.options.target, outcome, (), sent=0, total_ms=0.0,
            extra={"rollback": True, "already": True, "differing": self._source.pending})

    async def _go_back(self, wanted: int) -> dict[str, Any]:
        began = self._clock.now()
        body = await self._base.prepare_rollback(wanted)
        answer = await self._connection.ask(
            "rollback", {"number": wanted, "to": wanted, **body}, None)
        outcome = Outcome.from_json(answer)
        if outcome.verdict is not Verdict.COMMITTED:
            failure = outcome.error or Failure("reload", "the older version did not start")
            raise AgentError(f"#{wanted} could not be made live: {failure.message}",
                             file=failure.path, line=failure.line, hint=failure.hint)
        differs = await self._base.rolled_back(wanted, self._source)
        self._live = wanted
        total = (self._clock.now() - began) * 1000
        event = events.generation_event(
            self.options.project, self.options.target, outcome, (), sent=0, total_ms=total,
            extra={"rollback": True, "differing": len(differs),
                   "differs": differs[:events.SHOWN_PATHS]})
        self._hold(wanted, bool(differs))
        self._told_of(event)
        self._state(State.LIVE, wanted)
        return event

    def _hold(self, number: int, differs: bool) -> None:
        if not differs:
            self._held.over()
            return
        try:
            self._held.at(number, self._source.tree.manifest)
        except AgentError as error:
            self._not_remembered(number, error)

    def _told_of(self, event: Mapping[str, Any]) -> None:
        """What was asked for rather than saved: it is part of the history, too."""
        try:
            self._history.append(event)
        except WorkstationError as error:
            self._not_remembered(int(event["number"]), error)
        self._tell(event)

    def _wanted(self, number: int | None, kept: Sequence[int]) -> int:
        if number is None:
            older = [item for item in kept if self._live is not None and item < self._live]
            if not older:
                raise AgentError("there is no older generation to go back to",
                                 hint="hyperbox history")
            return max(older)
        if number not in kept:
            shown = ", ".join(f"#{item}" for item in sorted(kept)[-10:]) or "none"
            raise AgentError(f"generation #{number} is not kept (kept: {shown})",
                             hint="hyperbox history")
        return number

    async def restart(self, rung: str | None) -> dict[str, Any]:
        """Restart the program by ``rung``, or by the cheapest."""
        async def work() -> Mapping[str, Any]:
            return await self._connection.ask(
                "restart", {} if rung is None else {"rung": rung}, None)

        began = self._clock.now()
        outcome = Outcome.from_json(await self._pipeline.exclusive(work))
        event = events.generation_event(
            self.options.project, self.options.target, outcome, (), sent=0,
            total_ms=(self._clock.now() - began) * 1000, extra={"restart": True})
        self._told_of(event)
        return event

    async def pause(self) -> dict[str, Any]:
        """Stop taking saves until ``resume``."""
        self._source.pause()
        self.view.paused = True
        return self.status()

    async def resume(self) -> dict[str, Any]:
        """Take saves again."""
        self.view.paused = False
        self._source.resume()
        return self.status()

    async def exec(self, request: ExecRequest) -> ByteChannel:
        """Start a command beside the program."""
        return await RemoteCommand.start(self._connection.link(), request)

    async def feed(self, data: bytes) -> None:
        """Bytes for the program's standard input."""
        try:
            await self._connection.link().call("feed", {}, data, timeout=VERB_TIMEOUT)
        except LinkLostError:
            return  # the program goes on without us; nobody is there to take input
