"""Time limits that follow a Clock, cheap where the clock is the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import LinkTimeoutError

T = TypeVar("T")


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> object:
        """It won't happen."""
        ...


def after(clock: Clock, seconds: float, fire: Callable[[], object]) -> Timer:
    """Call ``fire`` when ``seconds`` of ``clock`` have passed."""
    if isinstance(clock, SystemClock):
        # The loop's own timer costs a microsecond, a task with a sleep in it fifteen.
        return asyncio.get_running_loop().call_later(seconds, fire)

    async def wait() -> None:
        await clock.sleep(seconds)
        fire()

    return asyncio.ensure_future(wait())


async def within(clock: Clock, seconds: float | None, work: Coroutine[Any, Any, T],
                 what: str) -> T:
    """The result of ``work``, or LinkTimeoutError saying ``what`` when the time is over.

    ``work`` is cancelled then, and when the caller is.
    """
    if seconds is None:
        return await work
    task = asyncio.ensure_future(work)
    late = False

    def fire() -> None:
        nonlocal late
        late = not task.done()
        task.cancel()

    timer = after(clock, seconds, fire)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await _abandon(task)
        raise
    finally:
        timer.cancel()
    if late and task.cancelled():
        raise LinkTimeoutError(f"{what}: no answer within {seconds:g} s")
    return task.result()


async def _abandon(task: asyncio.Task[T]) -> None:
    """End a task whose result nobody wants: what it holds must be free again when we return."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # looked at, so that the loop doesn't report it as forgotten
