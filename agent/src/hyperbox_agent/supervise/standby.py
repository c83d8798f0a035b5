"""The version that was just replaced, ready for a moment to answer again.

A save-all's first file may look like a save of its own and go live. When its next file comes, what
answers is half of a save: the old version takes the port back until the whole is ready. Neither
version is started for that, and nobody waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.supervise.instance import Instance
from hyperbox_agent.supervise.service import Service
from hyperbox_agent.supervise.tasks import Tasks
from hyperbox_agent.supervise.warm import Warm
from hyperbox_langpacks.base import RunFacts, Rung

READY = 0.075
"""Seconds for which the replaced version stays ready."""
PATIENCE = 0.3
"""Seconds after which the newer one answers again, where nothing else is on its way."""


@dataclass(slots=True)
class _Pair:
    """``other`` does not answer: the replaced version, or, ``back``, the one that replaced it."""

    other: Instance
    number: int
    back: bool = False


class Standby:
    """Of one service. Who calls it sees to it that one does at a time."""

    def __init__(self, service: Service, tasks: Tasks, clock: Clock,
                 busy: Callable[[], bool]) -> None:
        """``busy``: whether a version is being put in place; then that decides."""
        self._service = service
        self._clock = clock
        self._tasks = tasks
        self._busy = busy
        self._pair: _Pair | None = None

    def run_facts(self, live: Instance | None, warm: Warm, highest: Rung) -> RunFacts:
        """What a pack chooses by. While a replaced version answers, what it has not loaded the
        newer one may have, which comes back where the choice is that nothing need be done."""
        pair = self._pair
        aside = pair.other if pair is not None and pair.back else None
        these = [one for one in (live, aside) if one is not None]
        loaded = frozenset[str]().union(*(one.loaded for one in these))
        return RunFacts(live is not None, loaded, warm.ready, warm.refused, highest, warm.known,
                        live is not None and all(one.has_told for one in these))

    def keep(self, old: Instance, number: int) -> None:
        """``old``, which answered as ``number``, was replaced just now."""
        pair = self._pair = _Pair(old, number)
        self._tasks.start(self._let_go(pair), READY)

    def dismiss(self) -> None:
        """End the one that does not answer: what answers now is the last word."""
        pair, self._pair = self._pair, None
        if pair is not None:
            self._service.retire(pair.other)

    async def step_back(self) -> bool:
        """The replaced version answers again; False: there is none any more. Raises PortError."""
        pair = self._pair
        if pair is None or pair.back:
            return pair is not None
        if not await self._exchange(pair):
            return False
        pair.back = True
        self._tasks.start(self._give_up(pair), PATIENCE)
        return True

    async def step_forward(self) -> bool:
        """The newer version answers again, after ``step_back``. Raises PortError."""
        pair = self._pair
        if pair is None or not pair.back or not await self._exchange(pair):
            return False
        self.dismiss()
        return True

    async def _exchange(self, pair: _Pair) -> bool:
        live, serving = self._service.live, self._service.serving
        if live is None or serving is None or pair.other.child.exit is not None:
            return False
        await self._service.switch_to(pair.other, pair.number)
        pair.other, pair.number = live, serving
        return True

    async def _let_go(self, pair: _Pair) -> None:
        if pair is self._pair and not pair.back:
            self.dismiss()

    async def _give_up(self, pair: _Pair) -> None:
        while pair is self._pair and self._busy():
            await self._clock.sleep(PATIENCE)  # It may be taken back, and nothing follow it.
        if pair is self._pair:
            await self.step_forward()
