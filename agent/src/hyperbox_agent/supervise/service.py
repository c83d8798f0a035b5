"""What answers now: the port, the live instance, and every other instance until it is gone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.generation import Failure, State
from hyperbox_agent.supervise import adoption, procfs, records
from hyperbox_agent.supervise.adoption import Adopted, Make
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.family import Ended, Frozen, end, freeze, marked
from hyperbox_agent.supervise.instance import Instance, Sink
from hyperbox_agent.supervise.port import Held, Kept, Port, Stats
from hyperbox_agent.supervise.retiring import Retiring
from hyperbox_agent.supervise.warm import Warm

HOLD = 0.5
"""Seconds that requests in flight get to end before the program is frozen or stopped."""


class Service:
    """State and bookkeeping; the decisions are the supervisor's."""

    def __init__(self, config: AppConfig, home: str, run: str, mark: str, root: str, warm: Warm,
                 clock: Clock, sink: Sink) -> None:
        self.live: Instance | None = None
        self.serving: int | None = None
        """The number that answers now, or that last did."""
        self.root = root
        """Where the version that answers now runs."""
        self.state = State.DOWN
        self.error: Failure | None = None
        self.baseline: int | None = None
        """What the live version answered to its health request."""
        self.grace = config.grace
        self.closing = False
        self._config = config
        self._home = home
        self._run = run
        self._mark = mark
        self._warm = warm
        self._clock = clock
        self._sink = sink
        self._port: Port | None = None
        self._instances: dict[int, Instance] = {}
        self._retiring = Retiring(self.end, clock, sink)
        self._serial = 0

    def next_serial(self) -> int:
        """A name for one more instance."""
        self._serial += 1
        return self._serial

    # -- the port ---------------------------------------------------------------------------------

    async def open_port(self) -> str | None:
        """Hold the port; gives the table of client addresses. None: the program has no port.

        Raises PortError.
        """
        config = self._config
        if config.port is None:
            return None
        self._port = await Port.open(config.host, config.port, self._run, clock=self._clock,
                                     home=self._home)
        return self._port.peers_path

    @property
    def url(self) -> str | None:
        """Where clients reach the program."""
        if self._port is None:
            return None
        host, port = self._port.address
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - only shown
        return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"

    async def stats(self) -> Stats | None:
        """The port's figures by instance; None without a port."""
        return await self._port.stats() if self._port is not None else None

    async def switch_to(self, instance: Instance, number: int) -> None:
        """From now on this one answers, whose ``escrow`` is done. Raises PortError; then the old
        one still does."""
        before = self.live, self.serving, self.root
        self.live, self.serving, self.root = instance, number, instance.root
        # Written down, and its output kept (``escrow``), before it is asked anything: where we are
        # killed here, both versions run, and the next agent takes the newer one without a failed
        # answer.
        self.save()
        try:
            await self._switch_port(instance)
        except BaseException:
            self.live, self.serving, self.root = before
            self.save()
            raise
        self.error = None
        self.tell(State.LIVE)

    async def _switch_port(self, instance: Instance) -> None:
        if self._port is not None:
            address = instance.backend.result() if instance.backend.done() else None
            await self._port.switch(instance.identity.serial, address)

    async def step_aside(self) -> Instance | None:
        """As ``take_down``, once what is being answered has been: a program that ends at SIGTERM
        would cut it."""
        async with self._held():
            return await self.take_down()

    async def take_down(self) -> Instance | None:
        """From now on nothing answers and who asks waits; gives the one that was live."""
        live, self.live = self.live, None
        if live is not None and self._port is not None:
            await self._port.switch(live.identity.serial, None)
        return live

    async def escrow(self, instance: Instance) -> None:
        """Leave copies of its descriptors where they survive us. Raises PortError."""
        if self._port is not None:
            kept = instance.descriptors
            await self._port.keep(instance.identity.serial, instance.child.pid,
                                  list(kept.values()), {"streams": list(kept)})

    # -- instances --------------------------------------------------------------------------------

    @property
    def draining(self) -> int:
        """Instances on their way out."""
        return len(self._retiring.instances)

    def started(self, instance: Instance) -> None:
        """One more exists."""
        self._instances[instance.identity.serial] = instance
        self.save()

    def retire(self, instance: Instance) -> None:
        """Let it end what it is answering, then end it, in the background."""
        drain = self._port.drain if self._port is not None else None
        self._retiring.retire(instance, drain, self._config.drain)

    def dispose(self, instance: Instance) -> None:
        """End in the background one that never was live."""
        self._retiring.retire(instance, None, 0.0)

    async def end(self, instance: Instance) -> Ended:
        """End it completely."""
        serial = instance.identity.serial
        await self._warm.settled()
        others = frozenset(self._warm.pids | {one.child.pid for one in self._instances.values()})
        younger = [one.born_ticks for one in self._instances.values()
                   if one.identity.pool and one.identity.serial > serial]
        ended = await instance.end(self.grace, others=others,
                                   until=min(younger, default=procfs.ticks_now()))
        self._instances.pop(serial, None)
        if self._port is not None and not self.closing:
            await self._port.forget(serial)
        self.save()
        if ended.left:
            self._sink({"event": "problem", "number": instance.number,
                        "message": f"processes could not be ended: {list(ended.left)}"})
        return ended

    async def close(self) -> None:
        """End every instance, everything that bears our mark, and the port."""
        await self._retiring.close()
        for instance in list(self._instances.values()):
            self.dispose(instance)
        await self._retiring.close()
        # What lost its parent, its session and its name to us is still marked as ours.
        await end(lambda: marked(self._mark + "-", frozenset()), self.grace, self._clock)
        port, self._port = self._port, None
        if port is not None:
            await port.close()
        records.remove(self._records_path)
        self.live = self.serving = self.error = None
        self.tell(State.DOWN)

    # -- what a dead agent left -------------------------------------------------------------------

    async def adopt(self, make: Make) -> Adopted | None:
        """Take over the instance that serves, and let those that it replaced end what they answer;
        end everything else that a dead agent left."""
        left = records.load(self._records_path)
        kept = self._port.adopted if self._port is not None else None
        record = None if left is None else adoption.serving_record(left, self._config.as_json())
        taken = [] if left is None or record is None else adoption.take_all(
            left, record, kept, make, self._clock, self._sink)
        serials = frozenset(one.identity.serial for one in taken)
        adoption.close_others(kept, serials)
        await adoption.end_left(left, taken, self._mark, self._run, self.grace, self._clock)
        await self._forget_kept(kept, serials)
        self._serial = left.last_serial if left is not None else 0
        if not taken or record is None or left is None or left.serving is None:
            records.remove(self._records_path)
            return None
        self.baseline = record.status
        for one in taken:
            adoption.wake(one.family())
            self._instances[one.identity.serial] = one
        instance, *replaced = taken
        await self.escrow(instance)
        await self.switch_to(instance, left.serving)
        for one in replaced:
            self.retire(one)
        return Adopted(left.serving, instance.child.pid, instance.root, instance.identity.rung,
                       kept.orphaned_s if kept is not None else 0.0)

    async def _forget_kept(self, kept: Kept | None, taken: frozenset[int]) -> None:
        if self._port is None or kept is None:
            return
        for one in kept.instances:
            if one.number not in taken:
                await self._port.forget(one.number)
        if not taken:
            await self._port.switch(0, None)

    # -- around an apply --------------------------------------------------------------------------

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[dict[str, Any]]:
        """See ``Supervisor.quiet``."""
        facts: dict[str, Any] = {}
        frozen = Frozen()
        async with self._held() as held:
            if held is not None:
                facts.update(held_ms=held.waited_ms, busy=held.busy)
            began = self._clock.now()
            try:
                await freeze([one.family() for one in self._instances.values()], frozen)
                facts.update(frozen=len(frozen.pids), restless=list(frozen.restless),
                             freeze_ms=(self._clock.now() - began) * 1000)
                yield facts
            finally:
                frozen.thaw()

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Held | None]:
        """Inside, no request is begun, and those in flight had HOLD to end; streams are not waited
        for. None: there is nothing to hold. Raises PortError."""
        port = self._port if self.live is not None else None
        if port is None:
            yield None
            return
        try:
            yield await port.hold(HOLD)
        finally:
            await port.release()

    # -- told and written down --------------------------------------------------------------------

    def tell(self, state: State, number: int | None = None) -> None:
        """The state is this now."""
        self.state = state
        event: dict[str, Any] = {
            "event": "state", "state": state.value, "url": self.url,
            "number": self.serving if number is None else number,
            "pid": self.live.child.pid if self.live is not None else None}
        if self.error is not None:
            event["error"] = self.error.as_json()
        self._sink(event)

    def status(self) -> Mapping[str, Any]:
        """What answers, for people and scripts."""
        live = self.live
        return {"state": self.state.value, "number": self.serving, "url": self.url,
                "pid": live.child.pid if live is not None else None,
                "rung": live.identity.rung.word if live is not None else None,
                "error": self.error.as_json() if self.error is not None else None,
                "draining": self.draining, "roots": self._roots()}

    def _roots(self) -> list[str]:
        """Where instances run: first the one that answers, or that last did."""
        others = {one.identity.root for one in self._instances.values()} - {self.root}
        return [self.root, *sorted(others)]

    def save(self) -> None:
        """Write down what runs, for the next agent."""
        live = self.live
        records.save(self._records_path, records.Records(
            self._config.as_json(), self.serving, live.identity.serial if live else None,
            self._serial, tuple(self._record(one) for one in self._instances.values()),
            self._warm.helpers()))

    @property
    def _records_path(self) -> str:
        return os.path.join(self._run, records.FILE)

    def _record(self, instance: Instance) -> records.Record:
        one, backend = instance.identity, instance.backend
        known = backend.done() and not backend.cancelled()
        return records.Record(
            one.serial, one.number, instance.child.pid, instance.child.start, one.mark, one.root,
            int(one.rung), one.pool, instance.control_path, backend.result() if known else None,
            self.baseline if instance is self.live else None)
