"""Starting a program again that has crashed, with growing pauses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.supervise.backoff import Backoff
from hyperbox_agent.supervise.limits import cancel

Again = Callable[[], Awaitable[bool]]
"""One try; True: it is live, or there is nothing to do any more."""


class Revival:
    """At most one going on at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._backoff = Backoff()
        self._task: asyncio.Task[None] | None = None
        self.count = 0
        """Restarts since the last version that a reload brought."""
        self.next_at: float | None = None
        """When the next try is due."""

    def begin(self, lived: float, again: Again) -> None:
        """Try until it works; the first time after the pause that ``lived`` earns."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(lived, again))

    async def stop(self) -> None:
        """Give up; a try that is under way is undone by its own cancellation."""
        task, self._task = self._task, None
        self.next_at = None
        if task is not asyncio.current_task():
            await cancel(task)

    def reset(self) -> None:
        """A reload brought a version of its own."""
        self._backoff.reset()
        self.count = 0

    async def _run(self, lived: float, again: Again) -> None:
        while True:
            pause = self._backoff.after(lived)
            self.next_at = self._clock.now() + pause
            await self._clock.sleep(pause)
            self.next_at = None
            self.count += 1
            if await again():
                return
            lived = 0.0
