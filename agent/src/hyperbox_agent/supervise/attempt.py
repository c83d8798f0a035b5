"""One try at a version: started by the rung that was chosen, or the next one up, and checked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.generation import Failure
from hyperbox_agent.errors import ProgramError
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.health import Rules, Verdict, check, says_in_use
from hyperbox_agent.supervise.instance import Instance
from hyperbox_agent.supervise.limits import cancel, first_of
from hyperbox_agent.supervise.service import Service
from hyperbox_agent.supervise.starter import Starter
from hyperbox_agent.supervise.warm import Spare, Warm
from hyperbox_langpacks.base import Rung

_DEAF = 2.0
"""Seconds in which a child that was let go must have read what it is to become.

They are spent on a child that is stuck, and on no other; where the machine is slow or busy, a child
that is only late must not be taken for stuck, for the cold start instead of it takes longer still.
"""


@dataclass(slots=True)
class Attempt:
    """What came of it. ``instance`` runs, healthy or not; it is the caller's to end."""

    rung: Rung
    why: str
    instance: Instance | None = None
    verdict: Verdict = field(default_factory=Verdict)
    ms: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it may take traffic."""
        return self.instance is not None and self.verdict.failure is None


class Attempts:
    """Makes them. The service hears of each instance as soon as it exists."""

    def __init__(self, config: AppConfig, starter: Starter, warm: Warm, service: Service,
                 clock: Clock) -> None:
        self._config = config
        self._starter = starter
        self._warm = warm
        self._service = service
        self._clock = clock

    async def make(self, number: int, rung: Rung, why: str, root: str) -> Attempt:
        """Start and check. Raises PortError where the port is lost; then, and when it is cancelled,
        nothing is left running."""
        attempt = Attempt(rung, why)
        if rung <= Rung.WARM:
            attempt = await self._try_warm(number, root, why)
            if attempt.instance is not None:
                return attempt
        return await self._check_cold(attempt, number, root)

    def drop(self, attempt: Attempt) -> None:
        """End what it started."""
        if attempt.instance is not None:
            self._service.dispose(attempt.instance)

    async def _try_warm(self, number: int, root: str, why: str) -> Attempt:
        """A warm attempt; without an instance where it has to be cold, ``why`` says the reason."""
        attempt = Attempt(Rung.WARM, why)
        began = self._clock.now()
        try:
            attempt.instance, missing = await self._let_go(number, root)
        except ProgramError as error:
            return self._not_started(attempt, error)
        if attempt.instance is None:
            return Attempt(Rung.COLD, f"{why}; cold: {missing}")
        await self._check(attempt, attempt.instance, began)
        if attempt.verdict.signal in CRASHES:
            # A library that does not survive a fork: a new interpreter may do better.
            self._service.dispose(attempt.instance)
            failure = attempt.verdict.failure
            return Attempt(Rung.COLD, f"{why}; cold: the fork was "
                                      f"{failure.message if failure else 'lost'}")
        return attempt

    async def _let_go(self, number: int, root: str) -> tuple[Instance | None, str]:
        """An instance made of a spare; one that had died is replaced once. None: why there is none.

        Raises ProgramError.
        """
        missing = ""
        for _ in range(2):
            spare, missing = await self._warm.take()
            if spare is None:
                break
            missing = "the child that was forked ahead has died"
            instance = self._starter.warm(self._service.next_serial(), number, root, spare)
            if instance is None:
                continue
            self._service.started(instance)
            if await self._listens(spare, instance):
                return instance, ""
            self._service.dispose(instance)
            if instance.child.exit is None:
                return None, "the child that was forked ahead is stuck"
        return None, missing

    async def _check_cold(self, attempt: Attempt, number: int, root: str) -> Attempt:
        await self._start_cold(attempt, number, root)
        failure, lost = attempt.verdict.failure, attempt.instance
        if failure is not None and lost is not None and lost.was_given_port and says_in_use(
                lost.last_errors()):
            # Somebody else was quicker to bind the private port that it was given.
            self._service.dispose(lost)
            attempt.verdict = Verdict()
            await self._start_cold(attempt, number, root)
        return attempt

    async def _start_cold(self, attempt: Attempt, number: int, root: str) -> None:
        began = self._clock.now()
        attempt.rung = max(attempt.rung, Rung.COLD)
        try:
            attempt.instance = self._starter.cold(self._service.next_serial(), number, root)
        except ProgramError as error:
            self._not_started(attempt, error)
            return
        self._service.started(attempt.instance)
        await self._check(attempt, attempt.instance, began)

    async def _check(self, attempt: Attempt, instance: Instance, began: float) -> None:
        config, clock = self._config, self._clock
        rules = Rules(config.port, config.health, config.ready is not None, config.ready_after,
                      config.start_timeout, self._service.baseline)
        listening = began

        def note(_: object) -> None:
            nonlocal listening
            listening = clock.now()

        instance.backend.add_done_callback(note)
        # While it starts we wait, so this costs the save nothing.
        keeping = asyncio.ensure_future(self._service.escrow(instance))
        try:
            attempt.verdict = await check(instance, rules, clock)
            if attempt.ok:
                await keeping
        except BaseException:
            self._service.dispose(instance)
            raise
        finally:
            await cancel(keeping)
            if not keeping.cancelled():
                keeping.exception()  # whoever goes live hears of it; the others need no port
            instance.backend.remove_done_callback(note)
        attempt.ms = {"reload": (listening - began) * 1000,
                      "health": (clock.now() - listening) * 1000}

    async def _listens(self, spare: Spare, instance: Instance) -> bool:
        """Whether it has read what it is to become. When this raises it is disposed of."""
        deadline = self._clock.now() + _DEAF
        try:
            while (spare.is_deaf() and instance.child.exit is None
                   and self._clock.now() < deadline):
                # Woken by the program's own report, which on the usual path comes first.
                await first_of(self._clock, 0.01, instance.backend, instance.child.wait())
            return not spare.is_deaf()
        except BaseException:
            self._service.dispose(instance)
            raise
        finally:
            spare.release()

    def _not_started(self, attempt: Attempt, error: ProgramError) -> Attempt:
        attempt.verdict = Verdict(Failure("reload", error.message, error.file, error.line,
                                          error.hint))
        return attempt


CRASHES = frozenset({4, 6, 7, 8, 11})
"""SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV."""
