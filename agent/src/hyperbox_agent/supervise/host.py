"""What one target runs: supervisor, stage and transactions, kept across links and sessions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.entries import Change, Entry, Manifest
from hyperbox_agent.core.generation import Outcome, Verdict
from hyperbox_agent.core.pulls import PullRules
from hyperbox_agent.core.words import argv_of
from hyperbox_agent.errors import AgentError, ProgramError
from hyperbox_agent.home import run_folder
from hyperbox_agent.jsonfile import read_json, write_json
from hyperbox_agent.store.pruning import Keep
from hyperbox_agent.supervise import records
from hyperbox_agent.supervise.adoption import end_left
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.environments import as_facts
from hyperbox_agent.supervise.family import marked
from hyperbox_agent.supervise.in_place import InPlace
from hyperbox_agent.supervise.mend import CONFIGURED, mark_of
from hyperbox_agent.supervise.mirror import Mirror
from hyperbox_agent.supervise.output import Room
from hyperbox_agent.supervise.port import Port
from hyperbox_agent.supervise.pulling import Pulls
from hyperbox_agent.supervise.supervisor import Locate, Supervisor
from hyperbox_agent.supervise.transaction import Permit, Stage, Transaction, Work
from hyperbox_langpacks.base import (
    Command,
    Detection,
    Pack,
    PackError,
    ProjectView,
    Rung,
    RungChoice,
)
from hyperbox_langpacks.registry import find_pack
from hyperbox_langpacks.view import FolderView

Sink = Callable[[Mapping[str, Any]], None]

LEFT_GRACE = 5.0
"""Seconds that processes get whose own configuration can't be used."""


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What the session wants to have run here."""

    session: str
    project: str
    mode: str
    root: str
    """Absolute path of the tree that the program runs from."""
    app: Mapping[str, Any]
    keep: Keep = field(default_factory=Keep)
    """What stays of the older generations of a mirrored tree."""
    pull: tuple[str, ...] = ()
    """Patterns of what the program may write back to the source, from a mirrored tree."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What stands on the target when a session has told what it wants."""

    adopted: bool
    """The program of an earlier session, or of a dead agent, is running."""
    serving: int | None
    state: str
    """``"known"``, ``"new"`` or ``"recreated"``: whether the tree is the one of this session."""
    base: int | None
    """The number of the generation that the tree holds, on a mirrored target."""
    detection: Mapping[str, Any]


NOTHING_YET = Detection("none", Command(()), "nothing was brought here yet", 0.0)


def _detect(config: HostConfig, view: ProjectView) -> tuple[Pack | None, Detection]:
    """The pack that fits what stands in ``view``, and what it found. Raises ProgramError."""
    app = AppConfig.from_json(config.app)
    command = Command(argv_of(app.command), dict(app.env), app.cwd) if app.command else None
    try:
        return find_pack(view, os.environ, command)
    except PackError as error:
        raise ProgramError(error.message, file=error.file, line=error.line,
                           hint=error.hint) from error


class Host:
    """One program on one target. Lives on one event loop; survives its links."""

    def __init__(self, home: str, clock: Clock, sink: Sink, *, room: Room | None = None,
                 locate: Locate | None = None) -> None:
        """``room`` is awaited when there is much output; ``locate`` is asked where the content of
        a generation is before that generation is started again."""
        self.home = home
        self.config: HostConfig | None = None
        self._clock = clock
        self._sink = sink
        self._room = room
        self._locate = locate
        self._supervisor: Supervisor | None = None
        self._transaction: Transaction | None = None
        self._mirror: Mirror | None = None
        self.pulls: Pulls | None = None
        self._permits: dict[int, Permit] = {}
        self._configuring = asyncio.Lock()

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor of the configured program. Raises AgentError before ``configure``."""
        if self._supervisor is None:
            raise AgentError("nothing is configured on this target yet")
        return self._supervisor

    async def configure(self, config: HostConfig) -> Ready:
        """Take on a program. A second call with the same program leaves it running as it is.

        Where it raises, it is as if it had not been called: what a dead agent left is left.
        """
        async with self._configuring:
            if self._transaction is None or not self._same_program(config):
                return await self._set_up(config)
        return await self._take_on(config)

    async def _set_up(self, config: HostConfig) -> Ready:
        await self._end()
        try:
            self._open_stage(config)
            pack, found = self._detect_ahead(config)
            self._supervisor = Supervisor(
                AppConfig.from_json(config.app), pack, found, FolderView(config.root),
                self.home, clock=self._clock, sink=self._sink, room=self._room,
                locate=self._where, detect=partial(_detect, config),
                own_tree=self._mirror is not None)
            self._remember(config)
            self.config = config
            return await self._open(self._supervisor, config)
        except BaseException:
            if self._supervisor is not None and self._supervisor.url is None:
                self._supervisor = None  # without its port it has nothing, and must end nothing
            await self._end(fast=True)
            raise

    async def _open(self, supervisor: Supervisor, config: HostConfig) -> Ready:
        adopted = await supervisor.open()
        self._transaction = Transaction(supervisor, self._stage(config), self._clock, self._sink)
        if self._mirror is not None and adopted is not None:
            await self._mirror.lead_back(adopted.number, supervisor)
        self._open_pulls(config)
        return self._ready(adopted=adopted is not None)

    async def _take_on(self, config: HostConfig) -> Ready:
        """Another session for the same program."""
        async def take() -> Ready:
            self.config = config
            if self._mirror is not None:
                self._mirror.keep(config.keep)
                await self._mirror.drop_ahead()
            self._open_pulls(config)
            self.supervisor.tell_again()
            return self._ready(adopted=self.supervisor.serving is not None)

        if self._transaction is None:
            raise AgentError("the program is being stopped")
        # What the last session had settled goes on to its end; only then is it known what is here.
        return await self._transaction.between(take)

    def _open_pulls(self, config: HostConfig) -> None:
        if self.pulls is not None:
            self.pulls.close()
        self.pulls = None
        rules = PullRules(config.pull)
        if self._mirror is not None and self._transaction is not None and rules:
            self.pulls = Pulls(config.root, rules, self._mirror, self._transaction, self._clock,
                               lambda: self._sink({"event": "written"}),
                               lambda why: self._sink({"event": "problem", "message": why}))

    async def _where(self, number: int) -> str | None:
        """A tree with the content of generation ``number``: that of its start, if it still has."""
        if self._locate is not None:
            return await self._locate(number)
        return self.supervisor.root

    def _remember(self, config: HostConfig) -> None:
        """So that what this agent leaves when it is killed can be found and ended."""
        write_json(os.path.join(self.home, CONFIGURED), {
            "session": config.session, "project": config.project, "mode": config.mode,
            "root": config.root, "app": dict(config.app)})

    async def take_leftovers(self) -> bool:
        """Take over what a killed agent of this home left, to end it; whether there was any.

        What can't be taken over, since somebody else has the port by now or the tree is damaged,
        is ended here and now.
        """
        mark = mark_of(self.home)
        running = bool(marked(mark + "-", frozenset()))
        left = read_json(os.path.join(self.home, CONFIGURED))
        try:
            if isinstance(left, dict):
                ready = await self.configure(HostConfig(
                    left["session"], left["project"], left["mode"], left["root"], left["app"]))
                return running or ready.adopted
        except (AgentError, KeyError, TypeError):
            pass  # ``up`` says what is wrong there; here it is only to be ended
        run = run_folder(self.home)
        known = records.load(os.path.join(run, records.FILE))
        await end_left(known, (), mark, run, LEFT_GRACE, self._clock)
        if self._supervisor is None and isinstance(left, dict):
            await self._let_port_go(left.get("app"))
        return running

    async def _let_port_go(self, app: object) -> None:
        """End a holder that lives on, though what it held the port for can't be taken on."""
        try:
            config = AppConfig.from_json(app if isinstance(app, dict) else {})
            if config.port is not None:
                port = await Port.open(config.host, config.port, run_folder(self.home),
                                       clock=self._clock, home=self.home)
                await port.close()
        except (AgentError, KeyError, TypeError):
            return  # there is none, and the port is somebody else's

    @property
    def serves(self) -> bool:
        """Whether a version of the program answers now."""
        return self._supervisor is not None and self._supervisor.serving is not None

    async def comes_to_serve(self) -> bool:
        """As ``serves``, behind a ``configure`` that is under way: it may take over a program."""
        async with self._configuring:
            return self.serves

    async def kept(self) -> Sequence[int]:
        """The generations that a mirrored target can go back to."""
        return await self._mirror.kept() if self._mirror is not None else ()

    def foreign(self) -> Sequence[str]:
        """What stands in a tree that was recreated, though nobody put it there for this session."""
        mirror = self._mirror
        return mirror.foreign() if mirror is not None and mirror.state == "recreated" else ()

    def _same_program(self, config: HostConfig) -> bool:
        old = self.config
        return old is not None and (old.root, old.mode, old.app) == (
            config.root, config.mode, config.app)

    async def _close_stage(self) -> None:
        mirror, self._mirror = self._mirror, None
        if mirror is not None:
            await mirror.close()

    def _open_stage(self, config: HostConfig) -> None:
        if config.mode == "mirror":
            self._mirror = Mirror(config.root, self.home, session=config.session,
                                  keep=config.keep)

    def _stage(self, config: HostConfig) -> Stage:
        return self._mirror if self._mirror is not None else InPlace(config.root)

    def _detect_ahead(self, config: HostConfig) -> tuple[Pack | None, Detection]:
        """What is to be run, as far as it shows now: a tree of our own may still be empty, and is
        looked at again when the first version stands in it."""
        try:
            return _detect(config, FolderView(config.root))
        except ProgramError:
            if self._mirror is None:
                raise
            return None, NOTHING_YET

    def _ready(self, *, adopted: bool) -> Ready:
        mirror = self._mirror
        found = self.supervisor.found
        detection = {} if found is NOTHING_YET else as_facts(found)
        return Ready(adopted, self.supervisor.serving, mirror.state if mirror else "known",
                     mirror.base if mirror else None, detection)

    # -- generations --------------------------------------------------------------------------

    def expect(self, number: int) -> None:
        """This generation was announced: from now on it can be settled or superseded."""
        self._permits[number] = Permit()

    def expect_no_more(self, number: int) -> None:
        """What was announced came to nothing."""
        self._permits.pop(number, None)

    async def generation(self, number: int, changes: tuple[Change, ...], *, settled: bool,
                         first: bool, lowest: Rung = Rung.NOTHING,
                         blobs: AsyncIterator[bytes] | None = None,
                         base: int | None = None) -> Outcome:
        """Run one generation; returns when it is decided. Raises BaseChangedError where a mirrored
        tree does not hold ``base``."""
        if self._transaction is None:
            raise AgentError("nothing is configured on this target yet")
        permit = self._permits.setdefault(number, Permit())
        if settled:
            permit.settle()
        work = Work(number, changes, permit, first=first, lowest=lowest,
                    highest=self.supervisor.highest, blobs=blobs, base=base)
        try:
            return await self._transaction.run(work)
        finally:
            if self.pulls is not None:
                self.pulls.poke()
            if self._permits.get(number) is permit:
                del self._permits[number]

    def settle(self, number: int) -> None:
        """Quiet has come for this generation."""
        permit = self._permits.get(number)
        if permit is not None:
            permit.settle()

    def supersede(self, number: int) -> None:
        """Something newer than this generation is there."""
        permit = self._permits.get(number)
        if permit is not None:
            permit.supersede()

    def supersede_all(self) -> None:
        """The session that could have settled them is gone."""
        for permit in self._permits.values():
            permit.supersede()

    @property
    def mirrors(self) -> bool:
        """Whether the target has a tree of its own."""
        return self._mirror is not None

    async def missing(self, digests: Sequence[bytes]) -> list[bytes]:
        """Which of these contents are neither in the store nor in the tree."""
        return await self._mirror.missing(digests) if self._mirror is not None else []

    async def ahead(self, files: Sequence[tuple[Entry, memoryview]]) -> None:
        """Files of the first generation, before that is known: see ``Mirror.ahead``."""
        if self._mirror is None:
            raise AgentError("nothing is configured on this target yet")
        await self._mirror.ahead(files)

    async def complete(self, count: int, changes: Sequence[Change]) -> Sequence[Change]:
        """A first generation with the files that came ahead of it: see ``Mirror.complete``."""
        return await self._mirror.complete(count, changes) if self._mirror is not None else changes

    def folder(self, path: str) -> str:
        """An absolute folder below the root. Raises AgentError where there is none."""
        if self.config is None:
            raise AgentError("nothing is configured on this target yet")
        folder = os.path.join(self.config.root, path) if path else self.config.root
        if not os.path.isdir(folder):
            raise AgentError(f"there is no folder {path!r} in the project", file=path)
        return folder

    def environment(self) -> Mapping[str, str]:
        """The program's environment, for commands beside it."""
        return self.supervisor.environment()

    async def feed(self, data: bytes) -> None:
        """Bytes for the program's standard input; empty: its end."""
        await self.supervisor.feed(data)

    async def manifest(self) -> Manifest:
        """What a mirrored tree holds of what was put there, looked at now. Raises ApplyError."""
        return await self._mirror.manifest() if self._mirror is not None else {}

    @property
    def recorded(self) -> Manifest:
        """What was put into a mirrored tree."""
        return self._mirror.recorded if self._mirror is not None else {}

    async def rollback(self, number: int, root: str | None) -> Outcome:
        """Run an older generation: in place from the tree at ``root``, mirrored from the store."""
        if self._transaction is None or self.config is None:
            raise AgentError("nothing is configured on this target yet")
        if self._mirror is not None:
            changes = await self._mirror.rollback_changes(number)
            return await self.generation(number, changes, settled=True, first=False)
        return await self._transaction.run_from(number, root or self.config.root)

    async def restart(self, rung: Rung | None) -> Mapping[str, Any]:
        """Start the serving version again by the cheapest right rung, or by ``rung``."""
        supervisor = self.supervisor
        if supervisor.serving is None or self.config is None:
            raise AgentError("nothing is running here", hint="hyperbox up")
        choice = supervisor.choose(()) if rung is None else RungChoice(rung, "asked for")
        if choice.rung < Rung.WARM:
            choice = RungChoice(Rung.WARM, "restart asked for")
        if self._transaction is None:
            raise AgentError("nothing is configured on this target yet")
        outcome = await self._transaction.restart(supervisor.serving, choice)
        return {"ok": outcome.verdict is Verdict.COMMITTED, **outcome.as_json()}

    def status(self) -> dict[str, Any]:
        """What runs here, for people and scripts."""
        if self._supervisor is None or self.config is None:
            return {"configured": False}
        return {"configured": True, "project": self.config.project, "mode": self.config.mode,
                "root": self.config.root, **self._supervisor.status()}

    async def stop(self, *, fast: bool = False) -> None:
        """End everything that runs here. Safe to call twice; ``fast`` gives no grace."""
        self.supersede_all()
        async with self._configuring:
            await self._end(fast=fast)

    async def _end(self, *, fast: bool = False) -> None:
        if self._supervisor is not None:
            await self._supervisor.stop(fast=fast)
        if self.pulls is not None:
            self.pulls.close()
        self.pulls = None
        await self._close_stage()
        self._supervisor = None
        self._transaction = None
        self.config = None
