"""The warm side: the worker that gates, the prepared parent, and one child forked ahead.

One worker process does it all in the steady state. At first, and when there is more to import than
the present one has, a new one is prepared beside it at low priority and takes its place when it is
ready, so that a gate never waits for an import.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import struct
import termios
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import ProgramError
from hyperbox_agent.supervise import procfs
from hyperbox_agent.supervise.backoff import Backoff
from hyperbox_agent.supervise.learned import LearnedModules
from hyperbox_agent.supervise.limits import cancel, first_of
from hyperbox_agent.supervise.process import Child, Ends, Pipes, open_pipes
from hyperbox_agent.supervise.records import Record
from hyperbox_agent.supervise.worker import (
    Worker,
    WorkerError,
    WorkerGoneError,
    lower_priority,
    restore_priority,
)
from hyperbox_langpacks.base import Diagnostic, WorkerSpec

GATE_TIMEOUT = 30.0
PREPARE_TIMEOUT = 120.0
FORK_TIMEOUT = 10.0
FORK_PATIENCE = 1.0
"""Seconds for which a version that is to start waits for the child that is being forked for it."""
AHEAD_LIMIT = 4_096
"""Files of the tree that a child is told to load ahead, at most."""
CALM = 2.0
"""Seconds without a reload before new modules are worth a new prepared parent."""
ENOUGH_NEW = 3
"""New modules that are worth one; fewer are imported by each fork for itself."""
_LENGTH = struct.Struct(">I")
_F_SETPIPE_SZ = 1031


@dataclass(frozen=True, slots=True)
class Start:
    """What a forked child becomes."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str

    def as_json(self) -> dict[str, Any]:
        """As the worker protocol has it."""
        return {"argv": list(self.argv), "env": dict(self.env), "cwd": self.cwd}


class Spare:
    """A child that was forked ahead and waits for its go."""

    def __init__(self, child: Child, pipes: Pipes, go: int, mark: str) -> None:
        self.child = child
        self.pipes = pipes
        self.mark = mark
        """Mark of the parent that it was forked from."""
        self._go = go

    @property
    def alive(self) -> bool:
        """Whether it still waits."""
        return self.child.exit is None and self._go >= 0

    def start(self, what: Start) -> bool:
        """Let it go. False: it is dead; call ``discard``."""
        body = json.dumps(what.as_json(), separators=(",", ":")).encode()
        data = _LENGTH.pack(len(body)) + body
        try:
            return self.alive and os.write(self._go, data) == len(data)
        except OSError:
            return False

    def is_deaf(self) -> bool:
        """Whether what ``start`` wrote is still in the pipe: it does not run."""
        if self._go < 0:
            return False
        waiting = fcntl.ioctl(self._go, termios.FIONREAD, b"\0" * 4)
        return int.from_bytes(waiting, "little") > 0

    def release(self) -> None:
        """It has started: its go is of no use any more."""
        if self._go >= 0:
            os.close(self._go)
            self._go = -1

    def discard(self) -> None:
        """End it: a closed go without a byte is its end."""
        self.release()
        self.pipes.close()
        self.child.forget()


@dataclass(slots=True)
class _State:
    worker: Worker | None = None
    prepared: bool = False
    imported: int = 0
    refused: str | None = None
    spare: Spare | None = None
    notes: tuple[str, ...] = ()
    """Modules that were left out, and why."""


Tell = Callable[[Mapping[str, Any]], None]


class Warm:
    """Workers of one program. Without a ``WorkerSpec`` it gates nothing and is never warm."""

    def __init__(self, spec: WorkerSpec | None, interpreter: str, framework: str | None, root: str,
                 start: Callable[[], Start], learned: LearnedModules, mark: str, clock: Clock,
                 tell: Tell) -> None:
        self._spec = spec
        self._interpreter = interpreter
        self._framework = framework
        self._root = root
        self._start = start
        self._learned = learned
        # What a dead agent's parent forked bears that one's mark for ever, and is ended by it: no
        # parent of ours may have the same.
        self._mark = f"{mark}-w{procfs.ticks_now()}"
        self._serial = 0
        self._files: set[str] = set()
        self._clock = clock
        self._tell = tell
        self._now = _State()
        self._starting: asyncio.Task[Worker] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._deaths = Backoff()
        self._behind: set[asyncio.Task[None]] = set()
        """What ends by itself, and is waited for at the end."""
        self._closed = False
        self._envs: dict[str, Mapping[str, str]] = {}
        """Environment of each worker by its mark."""
        self._forking = asyncio.Lock()
        self._fresh = 0
        self._calm_since = clock.now()

    # -- what the supervisor asks -----------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a child waits for its go."""
        return self._now.spare is not None and self._now.spare.alive

    @property
    def has_learned(self) -> bool:
        """Whether it is known what a prepared parent should import."""
        return self._now.prepared or bool(self._learned.of(self._interpreter))

    @property
    def refused(self) -> str | None:
        """Why there is no prepared parent (names the library), or None."""
        if self._spec is None:
            return "this language has no prepared parent"
        return self._now.refused

    @property
    def pids(self) -> frozenset[int]:
        """Our processes that carry the parents' marks: workers and the spare."""
        found = {self._now.worker.child.pid} if self._now.worker else set()
        if self._now.spare is not None:
            found.add(self._now.spare.child.pid)
        return frozenset(found)

    def helpers(self) -> tuple[Record, ...]:
        """Our processes, for the next agent to end if we can't."""
        found = [self._now.worker.child] if self._now.worker is not None else []
        if self._now.spare is not None:
            found.append(self._now.spare.child)
        return tuple(Record(0, 0, child.pid, child.start, "") for child in found)

    def status(self) -> dict[str, Any]:
        """For ``status``: pids and what keeps it from being warm."""
        worker = self._now.worker
        return {"ready": self.ready, "refused": self.refused, "imported": self._now.imported,
                "worker": worker.child.pid if worker is not None and worker.alive else None,
                "spare": self._now.spare.child.pid if self._now.spare is not None else None}

    def open(self) -> None:
        """Start the worker in the background: the first gate need not wait for it."""
        if self._spec is not None:
            self._start_worker()

    async def gate(self, files: Sequence[tuple[str, str]]) -> tuple[Diagnostic, ...]:
        """Check files. A worker that dies is started once more; then health alone decides."""
        if self._spec is None or not files:
            return ()
        body = {"files": [{"path": path, "read": read} for path, read in files]}
        for _ in range(2):
            worker: Worker | None = None
            try:
                worker = await self._any_worker()
                reply = await worker.request("gate", body, timeout=GATE_TIMEOUT)
                return tuple(_diagnostic(item) for item in reply.get("errors", ()))
            except WorkerError as error:
                problem = error.message
                # One that was closed has a successor, which is prepared: that one is asked.
                if worker is None or worker is self._now.worker:
                    await self._drop_worker()
        self._problem(f"the gate could not check this change: {problem}")
        return ()

    async def take(self) -> tuple[Spare | None, str]:
        """The spare, the caller's from now on; or None and why there is none.

        Where a prepared parent can fork one it is waited for: that takes less than a cold start.
        """
        if self._now.prepared and not self.ready:
            await first_of(self._clock, FORK_PATIENCE, self._leave_behind(self._fork_now()))
        spare, self._now.spare = self._now.spare, None
        self._calm_since = self._clock.now()
        if spare is None:
            return None, self.refused or "no prepared parent yet"
        if not spare.alive:
            spare.discard()
            return None, "the child that was forked ahead has died"
        if differs(self._envs.get(spare.mark, {}), self._start().env):
            spare.discard()
            self._now.prepared = False
            return None, "the environment has changed since the parent was prepared"
        return spare, ""

    @property
    def known(self) -> frozenset[str]:
        """Modules that versions have imported from outside their tree: a fork tells no more of
        those that its parent had."""
        return frozenset(self._learned.of(self._interpreter))

    def learn(self, names: Iterable[str], files: Iterable[str] = ()) -> None:
        """What a running version has taken in: modules from outside its tree, in that order, and
        ``files`` of its tree."""
        self._fresh += self._learned.add(self._interpreter, names)
        # It tells of all that it opens, but only source has code that could be loaded ahead.
        new = (path for path in files if path.endswith((".py", ".pyw")))
        self._files.update(itertools.islice(new, max(0, AHEAD_LIMIT - len(self._files))))

    def nudge(self) -> None:
        """A version is live: see to it that the next one is warm."""
        self._calm_since = self._clock.now()
        if self._spec is None or self._closed:
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def refit(self, spec: WorkerSpec | None, interpreter: str,
                    framework: str | None) -> None:
        """The environment was made or installed anew: what was prepared is out of date."""
        self._spec, self._interpreter, self._framework = spec, interpreter, framework
        await cancel(self._refreshing, self._starting)
        await self._drop_worker()
        self._now.refused = None
        self._fresh = 0
        self.open()

    async def close(self) -> None:
        """End all of it. Safe to call twice."""
        self._closed = True
        await cancel(self._refreshing, self._starting, self._watching)
        await self._drop_worker()
        if self._behind:
            await asyncio.gather(*self._behind, return_exceptions=True)

    # -- the worker -------------------------------------------------------------------------------

    def _start_worker(self) -> asyncio.Task[Worker]:
        if self._starting is None or self._starting.done():
            self._starting = asyncio.get_running_loop().create_task(self._new_worker())
            # Who needs it awaits it and hears; at the first start nobody may.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._starting

    async def _any_worker(self) -> Worker:
        worker = self._now.worker
        if worker is not None and worker.alive:
            return worker
        await self._drop_worker()
        worker = await asyncio.shield(self._start_worker())
        if self._now.worker is None:
            self._now = _State(worker=worker, refused=self._now.refused)
        return self._now.worker or worker

    async def _new_worker(self) -> Worker:
        if self._spec is None or self._closed:
            raise WorkerError("this language has no worker")
        self._serial += 1
        what = self._start()
        worker = await Worker.start(self._spec, what.env, self._root,
                                    f"{self._mark}-{self._serial}", self._clock)
        self._envs[worker.mark] = what.env
        return worker

    async def _drop_worker(self) -> None:
        old, self._now = self._now, _State(refused=self._now.refused)
        if old.spare is not None:
            old.spare.discard()
        if old.worker is not None:
            await old.worker.close()
        if self._starting is not None and self._starting.done() and not self._starting.cancelled():
            started = None if self._starting.exception() else self._starting.result()
            self._starting = None
            if started is not None and started is not old.worker:
                await started.close()

    # -- preparing --------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        """See to a spare. A worker that dies on the way, perhaps killed, is replaced once."""
        for again in (True, False):
            try:
                await self._see_to_spare()
                return
            except WorkerError as error:
                if again and isinstance(error, WorkerGoneError):
                    if self._now.worker is not None and not self._now.worker.alive:
                        await self._drop_worker()
                    continue
                if error.message != self._now.refused:
                    self._problem(f"no warm restart for now: {error.message}")
                self._now.refused = error.message
                return

    async def _see_to_spare(self) -> None:
        if not self._now.prepared:
            await self._prepare()
        if self._now.prepared:
            await self._fork_ahead()
        if self._fresh >= ENOUGH_NEW and self._now.refused is None:
            while self._clock.now() - self._calm_since < CALM:
                await self._clock.sleep(CALM / 4)
            await self._prepare()
            await self._fork_ahead()

    async def _prepare(self) -> None:
        """A new parent with all that is known; takes the old one's place when it is ready.

        Beside the worker that gates, so that no save waits for its imports.
        """
        names = self._learned.of(self._interpreter)
        self._fresh = 0
        await self._any_worker()
        worker = await self._new_worker()
        lower_priority(worker.child.pid)
        try:
            reply = await worker.request(
                "prepare", {"preload": list(names), "framework": self._framework},
                timeout=PREPARE_TIMEOUT)
        except BaseException:
            await worker.close()
            raise
        finally:
            restore_priority(worker.child.pid)
        self._take_over(worker, reply)

    async def _replace(self, worker: Worker) -> None:
        """When a prepared parent dies between two saves, see to another: else the next save would
        find none."""
        began = self._clock.now()
        await worker.ended()
        if worker is self._now.worker:
            await self._clock.sleep(self._deaths.after(self._clock.now() - began))
        if worker is self._now.worker:
            await self._drop_worker()
            self.nudge()

    def _take_over(self, worker: Worker, reply: Mapping[str, Any]) -> None:
        old = self._now
        if self._watching is not None:
            self._watching.cancel()
        self._watching = asyncio.get_running_loop().create_task(self._replace(worker))
        self._now = _State(worker=worker, prepared=True, imported=int(reply.get("imported", 0)))
        self._now.notes = tuple(f"{item.get('module')}: {item.get('reason')}"
                                for item in reply.get("refused", ()) if isinstance(item, dict))
        if old.worker is worker:
            return
        if old.spare is not None:
            old.spare.discard()
        if old.worker is not None:
            self._envs.pop(old.worker.mark, None)
            self._leave_behind(old.worker.close())

    async def _fork_ahead(self) -> None:
        worker = self._now.worker
        if worker is None or self.ready:
            return
        if self._now.spare is not None:
            self._now.spare.discard()
            self._now.spare = None
        async with self._forking:
            if self.ready:
                return
            spare = await self._fork(worker)
            if worker is self._now.worker and not self._closed:
                self._now.spare, self._now.refused = spare, None
            else:
                spare.discard()

    async def _fork_now(self) -> None:
        with contextlib.suppress(WorkerError):  # its replacement is seen to after the next start
            await self._fork_ahead()

    async def settled(self) -> None:
        """Return when no fork is under way, so that ``pids`` has them all."""
        async with self._forking:
            return

    async def _fork(self, worker: Worker) -> Spare:
        ends: Ends = open_pipes()
        reader, go = _go_pipe()
        try:
            reply = await worker.request(
                "fork", {**self._start().as_json(), "files": sorted(self._files)},
                (*ends.theirs, reader), timeout=FORK_TIMEOUT)
            child = Child.take(int(reply["pid"]), self._clock)
        except BaseException as error:
            # A child that was forked all the same ends itself when its go is closed.
            os.close(go)
            ends.ours.close()
            if isinstance(error, WorkerError) or not isinstance(
                    error, (ProgramError, KeyError, ValueError)):
                raise
            raise WorkerError(f"the prepared parent could not fork: {error}") from error
        finally:
            ends.close_theirs()
            os.close(reader)
        return Spare(child, ends.ours, go, worker.mark)

    def _leave_behind(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)
        return task

    def _problem(self, message: str) -> None:
        self._tell({"event": "problem", "message": message})


def differs(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether two environments differ in what a library may have read when it was imported."""
    return any(before.get(name) != now.get(name) for name in {*before, *now} - {"PORT"}
               if not name.startswith("HYPERBOX_"))


def _go_pipe() -> tuple[int, int]:
    """Roomy, and never waited for: a spare that does not read must not hold up the agent."""
    reader, go = os.pipe()
    os.set_blocking(go, False)
    try:
        fcntl.fcntl(go, _F_SETPIPE_SZ, 1 << 20)
    except OSError:
        # The user's pipe quota is used up: 64 KiB (or less) hold any usual environment.
        return reader, go
    return reader, go


def _diagnostic(item: Mapping[str, Any]) -> Diagnostic:
    return Diagnostic(str(item.get("path", "")), item.get("line"), item.get("column"),
                      str(item.get("message", "")))
