"""Runs the program: starts versions, checks them, switches the port, ends what is old.

One reload at a time. A version that fails is ended and the old one goes on; nothing that a program
does raises out of here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.generation import Failure, State
from hyperbox_agent.core.listed import Listed
from hyperbox_agent.errors import AgentError, ProgramError
from hyperbox_agent.home import make_private, run_folder
from hyperbox_agent.supervise.adoption import Adopted
from hyperbox_agent.supervise.attempt import Attempt, Attempts
from hyperbox_agent.supervise.chores import Chores
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.environments import Detect, Environments
from hyperbox_agent.supervise.health import after_exit
from hyperbox_agent.supervise.instance import Instance, Sink, texts
from hyperbox_agent.supervise.learned import LearnedModules
from hyperbox_agent.supervise.mend import mark_of
from hyperbox_agent.supervise.output import Room
from hyperbox_agent.supervise.port import Stats
from hyperbox_agent.supervise.process import Reaper, become_subreaper
from hyperbox_agent.supervise.reloads import Leave, Permit, Reloaded, TakenBack, always
from hyperbox_agent.supervise.revival import Revival
from hyperbox_agent.supervise.service import Service
from hyperbox_agent.supervise.standby import Standby
from hyperbox_agent.supervise.starter import Starter
from hyperbox_agent.supervise.tasks import Tasks
from hyperbox_agent.supervise.warm import Warm
from hyperbox_agent.supervise.writes import Writes
from hyperbox_langpacks.base import (
    Detection,
    Diagnostic,
    FileChange,
    Pack,
    ProjectView,
    Rung,
    RungChoice,
)

__all__ = ["Adopted", "Permit", "Reloaded", "Supervisor"]

NOTIFY = "[reload] notify"
_REST = 0.003
_LEARN_LATE = 2.0
"""Seconds after which a live version is thought to have imported what it imports."""

Locate = Callable[[int], Awaitable["str | None"]]
"""The root that has the content of a generation now; None: nowhere."""


class Supervisor:
    """One program on one target. Made on the event loop; ``open`` before anything else."""

    def __init__(self, config: AppConfig, pack: Pack | None, found: Detection, view: ProjectView,
                 home: str, *, clock: Clock, sink: Sink, room: Room | None = None,
                 locate: Locate | None = None, environ: Mapping[str, str] | None = None,
                 detect: Detect | None = None, own_tree: bool = False) -> None:
        """``room`` is awaited after each piece of output (back-pressure). ``locate`` is asked
        before an older version is started again; without it, it is started where it ran. With an
        ``own_tree`` what stands there is known only when the first version is to be started:
        ``detect`` is asked again then, and where the environment has changed."""
        self.config = config
        self._only_told = Listed(config.notify, NOTIFY)
        self._view = view
        self._clock = clock
        self._sink = sink
        self._locate = locate
        code = os.path.join(home, "code")
        make_private(code)
        run, mark = run_folder(home), mark_of(home)
        self._starter = Starter(config, pack, found, view, code, run, mark,
                                dict(os.environ if environ is None else environ), clock, sink,
                                self._reported, room)
        self._warm = Warm(
            self._starter.worker_spec(), found.interpreter or "", found.framework, view.root,
            lambda: self._starter.start_of(view.root),
            LearnedModules(os.path.join(home, "learned.json")), mark, clock, sink)
        self._service = Service(config, home, run, mark, view.root, self._warm, clock, sink)
        self._attempts = Attempts(config, self._starter, self._warm, self._service, clock)
        self._chores = Chores(config, self._starter, mark, clock, sink)
        self._environments = Environments(self._starter, self._chores, home, sink, detect=detect,
                                          makes=own_tree)
        self._own_tree = own_tree
        self._revival = Revival(clock)
        self._reaper = Reaper(clock)
        self._writes = Writes()
        self._turn = asyncio.Lock()
        self._tasks = Tasks(clock, sink)
        self._standby = Standby(self._service, self._tasks, clock, self._turn.locked)
        self._changes: tuple[FileChange, ...] = ()
        self._stopping: asyncio.Task[None] | None = None

    # -- life -------------------------------------------------------------------------------------

    async def open(self) -> Adopted | None:
        """Hold the port, start the worker, take over what a dead agent left.

        Raises PortError when the port can't be held.
        """
        become_subreaper()
        await self._environments.recover()
        self._starter.peers = await self._service.open_port()
        adopted = await self._service.adopt(self._starter.adopt)
        if self._service.live is not None:
            self._tasks.start(self._watch(self._service.live))
            self._tasks.start(self._after_live(self._service.live))
        self._reaper.start()
        self._warm.open()
        return adopted

    async def stop(self, *, fast: bool = False) -> None:
        """End everything, and wait until nothing is left. Safe to call twice, and at any time.

        ``fast``: no grace, SIGKILL follows SIGTERM at once.
        """
        if fast:
            self._service.grace = 0.0
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        self._service.closing = True
        await self._tasks.close()
        await self._revival.stop()
        await self._warm.close()
        await self._service.close()
        await self._reaper.close()
        self._reaper.sweep()
        self._environments.close()

    # -- questions --------------------------------------------------------------------------------

    @property
    def serving(self) -> int | None:
        """The number that answers now."""
        return self._service.serving

    @property
    def root(self) -> str:
        """Where the version that answers now runs."""
        return self._service.root

    @property
    def found(self) -> Detection:
        """What is run, as it was found last."""
        return self._starter.found

    @property
    def highest(self) -> Rung:
        """The highest rung that may be taken."""
        return self.config.rung

    @property
    def url(self) -> str | None:
        """Where clients reach the program."""
        return self._service.url

    def status(self) -> dict[str, Any]:
        """What runs, for people and scripts."""
        return {**self._service.status(), "restarts": self._revival.count,
                "warm": self._warm.status()}

    async def stats(self) -> Stats | None:
        """The port's figures by instance; None without a port."""
        return await self._service.stats()

    def tell_again(self) -> None:
        """What answers, to a listener that was not there when it was told."""
        if self.serving is not None:
            self._service.tell(self._service.state)

    def wrote(self, path: str, since: float) -> bool:
        """Whether the program itself wrote this path at ``since`` (of our clock) or later."""
        return self._writes.wrote(path, since)

    def environment(self) -> Mapping[str, str]:
        """The program's environment, for commands beside it. Raises ProgramError (env file)."""
        return self._starter.env(self.root)

    async def feed(self, data: bytes) -> None:
        """Bytes for the program's standard input. Its input has no end: an empty ``data``, the end
        of the user's own, changes nothing for it."""
        if self._service.live is not None:
            await self._service.live.feed(data)

    async def gate(self, files: Sequence[tuple[str, str]]) -> tuple[Diagnostic, ...]:
        """Check files, given as (path, absolute file to read), before the program can see them."""
        pack = self._starter.pack
        if pack is None:
            return ()
        return await self._warm.gate([one for one in files if pack.wants_gate(one[0])])

    def choose(self, changes: Sequence[FileChange], *, first: bool = False) -> RungChoice:
        """The cheapest rung that is right for these changes, and why. A ``first`` start is cold."""
        self._changes = tuple(changes)
        if first:
            return RungChoice(Rung.COLD, "first start")
        live = self._service.live
        if live is not None and self.config.rung >= Rung.NOTIFY and changes and all(
                self._only_told(one.path, is_dir=one.kind == "dir") for one in changes):
            return RungChoice(Rung.NOTIFY, NOTIFY)
        pack = self._starter.pack
        if pack is None:
            return RungChoice(Rung.COLD, "no language pack knows this program")
        facts = self._standby.run_facts(live, self._warm, self.config.rung)
        return pack.choose(self._view, self._starter.found, changes, facts)

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[dict[str, Any]]:
        """Inside, no request is begun, no process of the program runs, and none is started (after
        a crash, which would read half a tree). It always ends. Gives facts for the trace."""
        await self._revival.stop()
        try:
            async with self._turn, self._service.quiet() as facts:
                yield facts
        finally:
            self._keep_alive()

    # -- reloading --------------------------------------------------------------------------------

    async def step_back(self) -> bool:
        """Let the version answer that was replaced a moment ago (``keep_old``), since the newer one
        proves to be half of a save. Lasts until the next version is live, or ``step_forward``."""
        async with self._turn:
            return await self._standby.step_back()

    async def step_forward(self) -> None:
        """Let the newer version answer again, after ``step_back``; else nothing."""
        async with self._turn:
            await self._standby.step_forward()

    async def reload(self, number: int, choice: RungChoice, *, root: str, permit: Permit,
                     taken_back: TakenBack | None = None, keep_old: bool = False) -> Reloaded:
        """Put a version in place of the one that answers now.

        Starts it, checks its health, awaits ``permit`` (False: superseded, it is ended again),
        switches the port and drains the old one in the background. A start that is ``taken_back``
        is broken off. ``keep_old``: for a moment ``step_back`` can undo the switch. Where versions
        must not overlap, ``permit`` is asked before the old one is stopped. Raises AgentError after
        ``stop``, PortError where the port is lost.
        """
        if self._stopping is not None:
            raise AgentError("the program is being stopped")
        leave = Leave(permit, taken_back, keep_old)
        task = asyncio.get_running_loop().create_task(self._reload(number, choice, root, leave))
        self._tasks.watch(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self._stopping is not None and task.cancelled():
                return Reloaded(False, True, choice.rung, "stopped in the meantime")
            raise

    async def restart(self, rung: Rung = Rung.WARM) -> Reloaded:
        """Start the version that answers now again, from where it runs. Raises ProgramError."""
        if self.serving is None:
            raise ProgramError("nothing is running here")
        return await self.reload(self.serving, RungChoice(rung, "restart asked for"),
                                 root=self.root, permit=always)

    async def revive(self, root: str | None = None) -> bool:
        """Start the last good version again, where nothing answers; whether it answers then."""
        if self._service.live is not None or self.serving is None:
            return self._service.live is not None
        await self._revival.stop()
        return await self._again(self.serving, root, self._service.error)

    async def _reload(self, number: int, choice: RungChoice, root: str,
                      leave: Leave) -> Reloaded:
        await self._revival.stop()
        async with self._turn:
            try:
                reloaded = await self._reload_in_turn(number, choice, root, leave)
            except ProgramError as error:
                reloaded = Reloaded(False, False, choice.rung, choice.why, error=Failure(
                    "reload", error.message, error.file, error.line, error.hint))
            finally:
                self._keep_alive()
        if not reloaded.ok and self._warm.has_learned:
            # It used up the child that was forked ahead, and what mends it should be warm too.
            self._nudge()
        return reloaded

    async def _reload_in_turn(self, number: int, choice: RungChoice, root: str,
                              leave: Leave) -> Reloaded:
        live = self._service.live
        if choice.rung <= Rung.NOTIFY and live is not None:
            return await self._without_process(number, choice, leave.permit)
        first = self.serving is None
        if first:
            self._service.tell(State.STARTING, number)
        if choice.rung < Rung.REINSTALL and not (first and self._own_tree):
            return await self._start(number, choice, root, leave)
        async with self._environments.tried(number, root, self._changes, first=first) as trial:
            why = f"{choice.why}; {trial.done}" if trial.done else choice.why
            reloaded = await self._start(number, RungChoice(choice.rung, why), root, leave)
            trial.live = reloaded.ok
        if trial.is_other:
            await self._refit()
        return reloaded

    async def _start(self, number: int, choice: RungChoice, root: str, leave: Leave) -> Reloaded:
        await self._chores.before(number, root)
        if self.config.overlaps or self._service.live is None:
            return await self._beside(number, choice.rung, choice.why, root, leave)
        return await self._instead(number, choice.rung, choice.why, root, leave.permit)

    async def _refit(self) -> None:
        """What prepares the next version is of the environment as it is now."""
        found = self._starter.found
        await self._warm.refit(self._starter.worker_spec(), found.interpreter or "",
                               found.framework)
        if self._service.live is not None and self._warm.has_learned:
            self._nudge()

    async def _without_process(self, number: int, choice: RungChoice,
                               permit: Permit) -> Reloaded:
        if not await permit():
            return Reloaded(False, True, choice.rung, choice.why)
        await self._standby.step_forward()
        self._service.serving = number
        if choice.rung is Rung.NOTIFY:
            self._sink({"event": "notify", "number": number,
                        "paths": [change.path for change in self._changes]})
        self._service.save()
        return Reloaded(True, False, choice.rung, choice.why, ms={"reload": 0.0, "health": 0.0})

    async def _beside(self, number: int, rung: Rung, why: str, root: str,
                      leave: Leave) -> Reloaded:
        """The old version serves until the new one is healthy and permitted."""
        attempt = await leave.unless_taken_back(
            self._attempts.make(number, rung, why, root), self._attempts.drop)
        if attempt is None:
            return Reloaded(False, True, rung, why)
        instance = attempt.instance
        if instance is None or not attempt.ok:
            return self._failed(attempt)
        try:
            permitted = await leave.permit()
        except BaseException:
            self._service.dispose(instance)
            raise
        if not permitted:
            self._service.dispose(instance)
            return Reloaded(False, True, attempt.rung, attempt.why, attempt.ms)
        if instance.child.exit is not None:
            # It was healthy, waited for quiet, and died meanwhile.
            attempt.verdict = after_exit(await instance.ended(), instance)
            return self._failed(attempt)
        return await self._succeed(attempt, instance, number, keep_old=leave.keep_old)

    async def _instead(self, number: int, rung: Rung, why: str, root: str,
                       permit: Permit) -> Reloaded:
        """The old version is stopped first; it is started again where the new one fails."""
        if not await permit():
            return Reloaded(False, True, rung, why)
        old_number = self.serving
        old = await self._service.step_aside()
        if old is not None:
            await self._service.end(old)
        attempt = await self._attempts.make(number, rung, why, root)
        if attempt.instance is not None and attempt.ok:
            return await self._succeed(attempt, attempt.instance, number)
        reloaded = self._failed(attempt)
        if old is not None and old_number is not None:
            await self._put_back(old_number, old.root, root)
        return reloaded

    async def _put_back(self, number: int, old_root: str, new_root: str) -> None:
        """Start the old version again, where its content still stands apart from the new one's."""
        failure = self._service.error
        place: str | None = old_root
        if old_root == new_root and self._locate is not None:
            place = await self._locate(number)
        if place is None or place == new_root:
            return
        await self._start_again(number, place, "the new version failed", failure)

    async def _succeed(self, attempt: Attempt, instance: Instance, number: int, *,
                       keep_old: bool = False) -> Reloaded:
        old, old_number = self._service.live, self._service.serving
        began = self._clock.now()
        await self._go_live(attempt, instance, number)
        attempt.ms["reload"] = attempt.ms.get("reload", 0.0) + (self._clock.now() - began) * 1000
        self._revival.reset()
        self._standby.dismiss()
        if old is not None and old_number is not None and keep_old:
            self._standby.keep(old, old_number)
        elif old is not None:
            self._service.retire(old)
        return Reloaded(True, False, attempt.rung, attempt.why, attempt.ms,
                        facts={"pid": instance.child.pid})

    async def _go_live(self, attempt: Attempt, instance: Instance, number: int) -> None:
        try:
            await self._service.switch_to(instance, number)
        except BaseException:
            self._service.dispose(instance)
            raise
        self._service.baseline = attempt.verdict.status
        self._tasks.start(self._watch(instance))
        self._tasks.start(self._after_live(instance), _REST)

    def _failed(self, attempt: Attempt) -> Reloaded:
        service = self._service
        self._environments.back_out()
        if attempt.instance is not None:
            service.dispose(attempt.instance)
        service.error = attempt.verdict.failure
        service.tell(State.BROKEN if service.live is None else State.LIVE)
        return Reloaded(False, False, attempt.rung, attempt.why, attempt.ms, service.error)

    async def _after_live(self, instance: Instance) -> None:
        """What makes the next reload quick, what survives our own death, and ``post``."""
        if self._warm.has_learned:
            self._nudge()
        await self._chores.after(instance.number, instance.root)
        if not self._warm.has_learned:
            await self._clock.sleep(_LEARN_LATE)
            if instance is self._service.live:
                self._nudge()

    def _nudge(self) -> None:
        if self._starter.can_fork:
            self._warm.nudge()

    def _reported(self, instance: Instance, report: Mapping[str, Any]) -> None:
        event = report["event"]
        if event == "modules":
            self._warm.learn(instance.learned.modules, instance.learned.files)
            if instance is self._service.live:
                self._nudge()
        elif event == "wrote":
            written = texts(report.get("paths"))
            self._writes.add(written, self._clock.now())
            self._sink({"event": "wrote", "number": instance.number, "paths": written})
        elif event != "listening":
            self._sink({**report, "number": instance.number})

    # -- the live instance's death ----------------------------------------------------------------

    async def _watch(self, instance: Instance) -> None:
        how = await instance.ended()
        service = self._service
        if service.live is not instance:
            return
        if await self._standby.step_forward():
            return
        lived = self._clock.now() - instance.born
        await service.take_down()
        service.error = after_exit(how, instance).failure
        await service.end(instance)
        if self.config.port is None and how.status == 0:
            # A program without a port that has done its work: the next save starts it again.
            service.error = None
            service.tell(State.DOWN)
            return
        service.tell(State.BROKEN)
        self._keep_alive(lived)

    def _keep_alive(self, lived: float = 0.0) -> None:
        """See to it that a version that was live, and no longer is, is started again."""
        number, service = self.serving, self._service
        if (service.live is None and number is not None and self._stopping is None
                and service.state is State.BROKEN):
            self._revival.begin(lived, lambda: self._again(number, None))

    async def _again(self, number: int, root: str | None, spite: Failure | None = None) -> bool:
        async with self._turn:
            if self._service.live is not None or self._stopping is not None:
                return True
            if root is None:
                root = await self._locate(number) if self._locate is not None else self.root
            return root is not None and await self._start_again(number, root, "it ended", spite)

    async def _start_again(self, number: int, root: str, why: str, spite: Failure | None) -> bool:
        """In ``spite`` of the failure of a newer one, which goes on being shown."""
        attempt = await self._attempts.make(number, Rung.WARM, why, root)
        if attempt.instance is None or not attempt.ok:
            self._failed(attempt)
            return False
        await self._go_live(attempt, attempt.instance, number)
        if spite is not None:
            self._service.error = spite
            self._service.tell(State.LIVE)
        return True
