"""Time limits and pauses by a Clock.

What only slept or waited is cancelled and not waited for: that would be two turns of the loop each
time, on the way of every save.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from hyperbox_agent.core.clock import Clock

T = TypeVar("T")


async def within(clock: Clock, seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; raises TimeoutError (and cancels it) after ``seconds``."""
    if seconds is None:
        return await work
    task = asyncio.ensure_future(work)
    limit = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({task, limit}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise TimeoutError(f"nothing in {seconds:g} s")
    finally:
        limit.cancel()
        await cancel(task)


async def cancel(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks and wait until they are over; what they raise is not ours to hear."""
    pending = [task for task in tasks if task is not None and not task.done()]
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.gather(*pending, return_exceptions=True)


async def first_of(clock: Clock, seconds: float, *awaited: Awaitable[Any]) -> bool:
    """Wait for any of these, ``seconds`` at most; whether one came. Futures are left as they are,
    coroutines are cancelled."""
    waiting = [asyncio.ensure_future(item) for item in awaited]
    ours = [task for task, item in zip(waiting, awaited, strict=True) if task is not item]
    limit = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({*waiting, limit}, return_when=asyncio.FIRST_COMPLETED)
        return any(item.done() for item in waiting)
    finally:
        limit.cancel()
        await cancel(*ours)
