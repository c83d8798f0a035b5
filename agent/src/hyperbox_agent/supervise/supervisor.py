"""Runs the program: starts versions, checks them, switches the port, ends what is old.

One reload at a time. A version that fails is ended and the old one goes on; nothing that a program
does raises out of here.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.generation import Failure, State
from hyperbox_agent.errors import AgentError, ProgramError
from hyperbox_agent.home import run_folder
from hyperbox_agent.supervise import adoption, procfs, records
from hyperbox_agent.supervise.adoption import Adopted
from hyperbox_agent.supervise.attempt import Attempt, Attempts
from hyperbox_agent.supervise.chores import Chores
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.family import Ended, Frozen, end, freeze, marked
from hyperbox_agent.supervise.health import after_exit
from hyperbox_agent.supervise.instance import Instance, Sink
from hyperbox_agent.supervise.learned import LearnedModules
from hyperbox_agent.supervise.output import Room
from hyperbox_agent.supervise.port import Port, Stats
from hyperbox_agent.supervise.process import Reaper, become_subreaper
from hyperbox_agent.supervise.retiring import Retiring
from hyperbox_agent.supervise.revival import Revival
from hyperbox_agent.supervise.starter import Starter
from hyperbox_agent.supervise.warm import Warm
from hyperbox_agent.supervise.writes import Writes
from hyperbox_langpacks.base import (
    Detection,
    Diagnostic,
    FileChange,
    Pack,
    PackError,
    ProjectView,
    RunFacts,
    Rung,
    RungChoice,
)

__all__ = ["Adopted", "Permit", "Reloaded", "Supervisor"]

HOLD = 0.5
"""Seconds that requests in flight get to end before the program is frozen for an apply."""
_REST = 0.003
_LEARN_LATE = 2.0
"""Seconds after which a live version is thought to have imported what it imports."""

Permit = Callable[[], Awaitable[bool]]
"""Whether a healthy version may go live; waits until that is known."""
Locate = Callable[[int], Awaitable["str | None"]]
"""The root that has the content of a generation now; None: nowhere."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """How a reload ended. Not ``ok``: the old version goes on, where it could."""

    ok: bool
    superseded: bool
    rung: Rung
    why: str
    ms: Mapping[str, float] = field(default_factory=dict)
    """``reload``: until the new version listened; ``health``: until it was healthy."""
    error: Failure | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Supervisor:
    """One program on one target. Made on the event loop; ``open`` before anything else."""

    def __init__(self, config: AppConfig, pack: Pack | None, found: Detection, view: ProjectView,
                 home: str, *, clock: Clock, sink: Sink, room: Room | None = None,
                 locate: Locate | None = None, environ: Mapping[str, str] | None = None) -> None:
        """``room`` is awaited after each piece of output (back-pressure). ``locate`` is asked
        before an older version is started again; without it, it is started where it ran."""
        self.config = config
        self.home = home
        self.serving: int | None = None
        """The number that answers now."""
        self.root = view.root
        """Where the version that answers now runs."""
        self._pack = pack
        self._found = found
        self._view = view
        self._clock = clock
        self._sink = sink
        self._locate = locate
        self._environ = dict(os.environ if environ is None else environ)
        self._run = ""
        self._mark = hashlib.sha256(os.path.abspath(home).encode("utf-8", "surrogateescape")
                                    ).hexdigest()[:12]
        code = os.path.join(home, "code")
        os.makedirs(code, mode=0o700, exist_ok=True)
        self._run = run_folder(home)
        self._starter = Starter(config, pack, found, view, code, self._run, self._mark,
                                self._environ, clock, sink, self._reported, room)
        self._warm = self._make_warm(code)
        self._chores = Chores(config, pack, self._starter, self._mark, clock, sink)
        self._attempts = Attempts(config, self._starter, self._warm, clock, self._started,
                                  self._dispose)
        self._retiring = Retiring(self._end, clock, sink)
        self._revival = Revival(clock)
        self._reaper = Reaper(clock)
        self._writes = Writes()
        self._port: Port | None = None
        self._live: Instance | None = None
        self._instances: dict[int, Instance] = {}
        self._baseline: int | None = None
        self._grace = config.grace
        self._changes: tuple[FileChange, ...] = ()
        self._state = State.DOWN
        self._error: Failure | None = None
        self._turn = asyncio.Lock()
        self._operations: set[asyncio.Task[Any]] = set()
        self._stopping: asyncio.Task[None] | None = None

    def _make_warm(self, code: str) -> Warm:
        spec = None
        if self._pack is not None:
            try:
                spec = self._pack.worker(self._view, self._found, code)
            except PackError as error:
                self._sink({"event": "problem", "message": error.message})
        learned = LearnedModules(os.path.join(self.home, "learned.json"))
        return Warm(spec, self._found.interpreter or "", self._found.framework, self._view.root,
                    lambda: self._starter.start_of(self._view.root), learned, self._mark,
                    self._clock, self._sink)

    # -- life -------------------------------------------------------------------------------------

    async def open(self) -> Adopted | None:
        """Hold the port, start the worker, take over what a dead agent left.

        Raises PortError when the port can't be held.
        """
        become_subreaper()
        left = records.load(self._records_path)
        await self._open_port()
        adopted = await self._adopt(left)
        self._reaper.start()
        self._warm.open()
        return adopted

    async def _open_port(self) -> None:
        config = self.config
        if config.port is not None:
            self._port = await Port.open(config.host, config.port, self._run, clock=self._clock)
            self._starter.peers = self._port.peers_path

    async def _adopt(self, left: records.Records | None) -> Adopted | None:
        kept = self._port.adopted if self._port is not None else None
        record = None if left is None else adoption.serving_record(left, self.config.as_json())
        instance = None if record is None else adoption.take_over(
            record, kept, self._starter.adopt, self._clock, self._sink)
        taken = record if instance is not None else None
        adoption.close_others(kept, taken)
        await adoption.end_left(left, instance, self._mark, self.config.grace, self._clock)
        await self._forget_kept(kept, taken)
        if left is not None:
            self._attempts.serial = left.last_serial
        if instance is None or taken is None or left is None or left.serving is None:
            records.remove(self._records_path)
            return None
        self._baseline = taken.status
        self._started(instance)
        await self._switch_to(instance, left.serving)
        return Adopted(left.serving, instance.child.pid, instance.root, instance.identity.rung,
                       kept.orphaned_s if kept is not None else 0.0)

    async def _forget_kept(self, kept: Any, taken: records.Record | None) -> None:
        if self._port is None or kept is None:
            return
        for one in kept.instances:
            if taken is None or one.number != taken.serial:
                await self._port.forget(one.number)
        if taken is None:
            await self._port.switch(0, None)

    async def stop(self, *, fast: bool = False) -> None:
        """End everything, and wait until nothing is left. Safe to call twice, and at any time.

        ``fast``: no grace, SIGKILL follows SIGTERM at once.
        """
        if fast:
            self._grace = 0.0
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        operations = list(self._operations)
        for task in operations:
            task.cancel()
        await asyncio.gather(*operations, return_exceptions=True)
        await self._revival.stop()
        self._live = None
        await asyncio.gather(self._retiring.close(), self._warm.close())
        await asyncio.gather(*(self._end(one) for one in list(self._instances.values())))
        # What lost its parent, its session and its name to us is still marked as ours.
        await end(lambda: marked(self._mark + "-", frozenset()), self._grace, self._clock)
        if self._port is not None:
            port, self._port = self._port, None
            await port.close()
        await self._reaper.close()
        self._reaper.sweep()
        records.remove(self._records_path)
        self.serving = None
        self._tell(State.DOWN)

    # -- questions --------------------------------------------------------------------------------

    @property
    def highest(self) -> Rung:
        """The highest rung that may be taken."""
        return self.config.rung

    @property
    def url(self) -> str | None:
        """Where clients reach the program."""
        if self._port is None:
            return None
        host, port = self._port.address
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - only shown
        return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"

    def status(self) -> dict[str, Any]:
        """What runs, for people and scripts."""
        live = self._live
        return {
            "state": self._state.value, "number": self.serving, "url": self.url,
            "pid": live.child.pid if live is not None else None,
            "rung": live.identity.rung.word if live is not None else None,
            "error": self._error.as_json() if self._error is not None else None,
            "draining": len(self._retiring.instances), "restarts": self._revival.count,
            "warm": self._warm.status(),
        }

    async def stats(self) -> Stats | None:
        """The port's figures by instance; None without a port."""
        return await self._port.stats() if self._port is not None else None

    def wrote(self, path: str, since: float) -> bool:
        """Whether the program itself wrote this path at ``since`` (of our clock) or later."""
        return self._writes.wrote(path, since)

    def environment(self) -> Mapping[str, str]:
        """The program's environment, for commands beside it. Raises ProgramError (env file)."""
        return self._starter.env(self.root)

    async def feed(self, data: bytes) -> None:
        """Bytes for the program's standard input. Its input has no end: an empty ``data``, the end
        of the user's own, changes nothing for it."""
        if self._live is not None:
            await self._live.feed(data)

    async def gate(self, files: Sequence[tuple[str, str]]) -> tuple[Diagnostic, ...]:
        """Check files, given as (path, absolute file to read), before the program can see them."""
        pack = self._pack
        if pack is None:
            return ()
        return await self._warm.gate([one for one in files if pack.wants_gate(one[0])])

    def choose(self, changes: Sequence[FileChange]) -> RungChoice:
        """The cheapest rung that is right for these changes, and why."""
        self._changes = tuple(changes)
        live = self._live
        if self._pack is None:
            return RungChoice(Rung.COLD, "no language pack knows this program")
        loaded = frozenset(live.learned.files) if live is not None else frozenset()
        facts = RunFacts(live is not None, loaded, self._warm.ready, self._warm.refused,
                         self.config.rung)
        return self._pack.choose(self._view, self._found, changes, facts)

    # -- reloading --------------------------------------------------------------------------------

    async def reload(self, number: int, choice: RungChoice, *, root: str,
                     permit: Permit) -> Reloaded:
        """Put a version in place of the one that answers now.

        Starts it, checks its health, awaits ``permit`` (False: superseded, it is ended again),
        switches the port and drains the old one in the background. Where versions must not
        overlap, ``permit`` is asked before the old one is stopped. Raises AgentError after
        ``stop`` only.
        """
        if self._stopping is not None:
            raise AgentError("the program is being stopped")
        task = asyncio.get_running_loop().create_task(self._reload(number, choice, root, permit))
        self._operations.add(task)
        task.add_done_callback(self._operations.discard)
        try:
            return await task
        except asyncio.CancelledError:
            if self._stopping is not None and task.cancelled():
                return Reloaded(False, True, choice.rung, "stopped in the meantime")
            raise

    async def restart(self, rung: Rung = Rung.WARM) -> Reloaded:
        """Start the version that answers now again, from where it runs."""
        if self.serving is None:
            raise ProgramError("nothing is running here")
        return await self.reload(self.serving, RungChoice(rung, "restart asked for"),
                                 root=self.root, permit=_always)

    async def revive(self, root: str | None = None) -> bool:
        """Start the last good version again, where nothing answers; whether it answers then."""
        if self._live is not None or self.serving is None:
            return self._live is not None
        await self._revival.stop()
        return await self._again(self.serving, root)

    async def _reload(self, number: int, choice: RungChoice, root: str,
                      permit: Permit) -> Reloaded:
        await self._revival.stop()
        async with self._turn:
            try:
                return await self._reload_in_turn(number, choice, root, permit)
            except ProgramError as error:
                return Reloaded(False, False, choice.rung, choice.why, error=Failure(
                    "reload", error.message, error.file, error.line, error.hint))
            finally:
                self._keep_alive()

    async def _reload_in_turn(self, number: int, choice: RungChoice, root: str,
                              permit: Permit) -> Reloaded:
        if choice.rung <= Rung.NOTIFY and self._live is not None:
            return await self._without_process(number, choice, permit)
        if self.serving is None:
            self._tell(State.STARTING, number)
        why = await self._prepare_environment(number, choice, root)
        if self.config.overlaps or self._live is None:
            return await self._beside(number, choice.rung, why, root, permit)
        return await self._instead(number, choice.rung, why, root, permit)

    async def _without_process(self, number: int, choice: RungChoice,
                               permit: Permit) -> Reloaded:
        if not await permit():
            return Reloaded(False, True, choice.rung, choice.why)
        self.serving = number
        if choice.rung is Rung.NOTIFY:
            self._sink({"event": "notify", "number": number,
                        "paths": [change.path for change in self._changes]})
        self._save()
        return Reloaded(True, False, choice.rung, choice.why, ms={"reload": 0.0, "health": 0.0})

    async def _prepare_environment(self, number: int, choice: RungChoice, root: str) -> str:
        """Install where that is the rung, then ``pre``; gives the reason for the trace."""
        why = choice.why
        if choice.rung >= Rung.REINSTALL:
            installed = await self._chores.install(number, root, self._changes)
            why = f"{why}; {installed}" if installed else why
            self._starter.forget()
            await self._warm.reset()
        await self._chores.before(number, root)
        return why

    async def _beside(self, number: int, rung: Rung, why: str, root: str,
                      permit: Permit) -> Reloaded:
        """The old version serves until the new one is healthy and permitted."""
        attempt = await self._attempts.make(number, rung, why, root, self._baseline)
        instance = attempt.instance
        if instance is None or not attempt.ok:
            return self._failed(attempt)
        try:
            permitted = await permit()
        except BaseException:
            self._dispose(instance)
            raise
        if not permitted:
            self._dispose(instance)
            return Reloaded(False, True, attempt.rung, attempt.why, attempt.ms)
        if instance.child.exit is not None:
            # It was healthy, waited for quiet, and died meanwhile.
            attempt.verdict = after_exit(await instance.ended(), instance, None)
            return self._failed(attempt)
        return await self._succeed(attempt, instance, number)

    async def _instead(self, number: int, rung: Rung, why: str, root: str,
                       permit: Permit) -> Reloaded:
        """The old version is stopped first; it is started again where the new one fails."""
        if not await permit():
            return Reloaded(False, True, rung, why)
        old, old_number = self._live, self.serving
        if old is not None:
            self._live = None
            if self._port is not None:
                await self._port.switch(old.identity.serial, None)
            await self._end(old)
        attempt = await self._attempts.make(number, rung, why, root, self._baseline)
        if attempt.instance is not None and attempt.ok:
            return await self._succeed(attempt, attempt.instance, number)
        reloaded = self._failed(attempt)
        if old is not None and old_number is not None and old.root != root:
            await self._start_again(old_number, old.root, "the new version failed")
        return reloaded

    async def _succeed(self, attempt: Attempt, instance: Instance, number: int) -> Reloaded:
        old = self._live
        began = self._clock.now()
        self._baseline = attempt.verdict.status
        await self._switch_to(instance, number)
        attempt.ms["reload"] = attempt.ms.get("reload", 0.0) + (self._clock.now() - began) * 1000
        self._revival.reset()
        if old is not None:
            drain = self._port.drain if self._port is not None else None
            self._retiring.retire(old, drain, self.config.drain)
        self._background(self._after_live(instance), _REST)
        return Reloaded(True, False, attempt.rung, attempt.why, attempt.ms,
                        facts={"pid": instance.child.pid})

    def _failed(self, attempt: Attempt) -> Reloaded:
        if attempt.instance is not None:
            self._dispose(attempt.instance)
        self._error = attempt.verdict.failure
        self._tell(State.BROKEN if self._live is None else State.LIVE)
        return Reloaded(False, False, attempt.rung, attempt.why, attempt.ms, self._error)

    async def _switch_to(self, instance: Instance, number: int) -> None:
        """From now on this one answers."""
        serial = instance.identity.serial
        if self._port is not None:
            address = instance.backend.result() if instance.backend.done() else None
            await self._port.switch(serial, address)
        self._live, self.serving, self.root = instance, number, instance.root
        self._error = None
        self._background(self._watch(instance))
        self._tell(State.LIVE)

    async def _after_live(self, instance: Instance) -> None:
        """What makes the next reload quick, what survives our own death, and ``post``."""
        self._save()
        if self._warm.has_learned:
            self._nudge()
        if self._port is not None:
            kept = instance.descriptors
            await self._port.keep(instance.identity.serial, instance.child.pid,
                                  list(kept.values()), {"streams": list(kept)})
        await self._chores.after(instance.number, instance.root)
        if not self._warm.has_learned:
            await self._clock.sleep(_LEARN_LATE)
            if instance is self._live:
                self._nudge()

    def _nudge(self) -> None:
        if self._starter.can_fork:
            self._warm.nudge()

    # -- the live instance's death ----------------------------------------------------------------

    async def _watch(self, instance: Instance) -> None:
        how = await instance.ended()
        if self._live is not instance:
            return
        self._live = None
        lived = self._clock.now() - instance.born
        if self._port is not None:
            await self._port.switch(instance.identity.serial, None)
        self._error = after_exit(how, instance, None).failure
        await self._end(instance)
        if self._port is None and how.status == 0:
            # A program without a port that has done its work: the next save starts it again.
            self._error = None
            self._tell(State.DOWN)
            return
        self._tell(State.BROKEN)
        self._keep_alive(lived)

    def _keep_alive(self, lived: float = 0.0) -> None:
        """See to it that a version that was live, and no longer is, is started again."""
        number = self.serving
        if (self._live is None and number is not None and self._stopping is None
                and self._state is State.BROKEN):
            self._revival.begin(lived, lambda: self._again(number, None))

    async def _again(self, number: int, root: str | None) -> bool:
        async with self._turn:
            if self._live is not None or self._stopping is not None:
                return True
            if root is None:
                root = await self._locate(number) if self._locate is not None else self.root
            if root is None:
                return False
            return await self._start_again(number, root, "it had ended")

    async def _start_again(self, number: int, root: str, why: str) -> bool:
        attempt = await self._attempts.make(number, Rung.WARM, why, root, self._baseline)
        if attempt.instance is None or not attempt.ok:
            self._failed(attempt)
            return False
        await self._switch_to(attempt.instance, number)
        self._background(self._after_live(attempt.instance), _REST)
        return True

    # -- around an apply --------------------------------------------------------------------------

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[dict[str, Any]]:
        """Inside, no request is begun and no process of the program runs. Always ends, also on
        an error inside. Gives facts for the trace."""
        facts: dict[str, Any] = {}
        port = self._port if self._live is not None else None
        frozen = Frozen()
        try:
            if port is not None:
                held = await port.hold(HOLD)
                facts.update(held_ms=held.waited_ms, busy=held.busy)
            began = self._clock.now()
            await freeze([one.family() for one in self._instances.values()], frozen)
            facts.update(frozen=len(frozen.pids), restless=list(frozen.restless),
                         freeze_ms=(self._clock.now() - began) * 1000)
            yield facts
        finally:
            frozen.thaw()
            if port is not None:
                await port.release()

    # -- bookkeeping ------------------------------------------------------------------------------

    @property
    def _records_path(self) -> str:
        return os.path.join(self._run, "instances.json")

    def _started(self, instance: Instance) -> None:
        self._instances[instance.identity.serial] = instance
        self._save()

    def _dispose(self, instance: Instance) -> None:
        """End it in the background: it never was live, or is no longer."""
        self._retiring.retire(instance, None, 0.0)

    async def _end(self, instance: Instance) -> Ended:
        serial = instance.identity.serial
        await self._warm.settled()
        others = frozenset(self._warm.pids | {one.child.pid for one in self._instances.values()})
        younger = [one.born_ticks for one in self._instances.values()
                   if one.identity.pool and one.identity.serial > serial]
        ended = await instance.end(self._grace, others=others,
                                   until=min(younger, default=procfs.ticks_now()))
        self._instances.pop(serial, None)
        if self._port is not None and self._stopping is None:
            await self._port.forget(serial)
        self._save()
        if ended.left:
            self._sink({"event": "problem", "number": instance.number,
                        "message": f"processes could not be ended: {list(ended.left)}"})
        return ended

    def _reported(self, instance: Instance, report: Mapping[str, Any]) -> None:
        event = report["event"]
        if event == "modules":
            self._warm.learn(instance.learned.modules)
            if instance is self._live:
                self._nudge()
        elif event == "wrote":
            paths = report.get("paths")
            self._writes.add([path for path in paths if isinstance(path, str)]
                             if isinstance(paths, list) else (), self._clock.now())
        elif event != "listening":
            self._sink({**report, "number": instance.number})

    def _save(self) -> None:
        if self._stopping is not None and not self._instances:
            return
        live = self._live
        records.save(self._records_path, records.Records(
            self.config.as_json(), self.serving, live.identity.serial if live else None,
            self._attempts.serial, tuple(_record(one) for one in self._instances.values()),
            self._warm.helpers()))

    def _tell(self, state: State, number: int | None = None) -> None:
        self._state = state
        event: dict[str, Any] = {
            "event": "state", "state": state.value, "url": self.url,
            "number": self.serving if number is None else number,
            "pid": self._live.child.pid if self._live is not None else None}
        if self._error is not None:
            event["error"] = self._error.as_json()
        self._sink(event)

    def _background(self, work: Coroutine[Any, Any, None], delay: float = 0.0) -> None:
        """``delay`` lets the reload return first: its caller has been waiting."""
        task = asyncio.get_running_loop().create_task(_later(self._clock, delay, work))
        self._operations.add(task)
        task.add_done_callback(self._operation_done)

    def _operation_done(self, task: asyncio.Task[Any]) -> None:
        self._operations.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._sink({"event": "problem", "message": f"{type(error).__name__}: {error}"})


async def _later(clock: Clock, delay: float, work: Coroutine[Any, Any, None]) -> None:
    try:
        if delay:
            await clock.sleep(delay)
    except BaseException:
        work.close()
        raise
    await work


async def _always() -> bool:
    return True


def _record(instance: Instance) -> records.Record:
    one = instance.identity
    backend = instance.backend
    known = backend.done() and not backend.cancelled()
    return records.Record(one.serial, one.number, instance.child.pid, instance.child.start,
                          one.mark, one.root, int(one.rung), one.pool, instance.control_path,
                          backend.result() if known else None)
