"""Work in the background, never lost sight of: its errors are told, its end is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from hyperbox_agent.core.clock import Clock


class Tasks:
    """A set of running tasks."""

    def __init__(self, clock: Clock, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], delay: float = 0.0) -> asyncio.Task[Any]:
        """Run it; after ``delay``, where somebody who has been waiting is to go first."""
        task = asyncio.get_running_loop().create_task(self._run(work, delay))
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Cancel this one too at the end; its errors are for whoever awaits it."""
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Cancel all and wait until they are over."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: Coroutine[Any, Any, Any], delay: float) -> Any:
        try:
            if delay:
                await self._clock.sleep(delay)
        except BaseException:
            work.close()
            raise
        return await work

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._tell({"event": "problem", "message": f"{type(error).__name__}: {error}"})
