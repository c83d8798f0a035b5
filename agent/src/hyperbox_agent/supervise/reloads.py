"""What a reload is told, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hyperbox_agent.core.generation import Failure
from hyperbox_agent.supervise.limits import cancel
from hyperbox_langpacks.base import Rung

T = TypeVar("T")

Permit = Callable[[], Awaitable[bool]]
"""Whether a healthy version may go live; waits until that is known."""
TakenBack = Callable[[], Awaitable[None]]
"""Returns once it is known that the version won't go live, and until then does not."""


async def always() -> bool:
    """The permit of what nothing can supersede."""
    return True


@dataclass(frozen=True, slots=True)
class Leave:
    """What a reload knows of whether its version may go live."""

    permit: Permit
    taken_back: TakenBack | None = None
    keep_old: bool = False
    """Whether the version that is replaced stays ready for a moment."""

    async def unless_taken_back(self, start: Coroutine[Any, Any, T],
                                drop: Callable[[T], None]) -> T | None:
        """The outcome of ``start``; None where it was taken back, and broken off.

        Where we are cancelled and there is an outcome already, it goes to ``drop``.
        """
        starting = asyncio.ensure_future(start)
        told = asyncio.ensure_future(self.taken_back()) if self.taken_back is not None else None
        try:
            await asyncio.wait({task for task in (starting, told) if task is not None},
                               return_when=asyncio.FIRST_COMPLETED)
            return starting.result() if starting.done() else None
        except asyncio.CancelledError:
            if starting.done() and not starting.cancelled() and starting.exception() is None:
                drop(starting.result())
            raise
        finally:
            if told is not None:
                told.cancel()
            await cancel(starting)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """How a reload ended. Not ``ok``: the old version goes on, where it could."""

    ok: bool
    superseded: bool
    rung: Rung
    why: str
    ms: Mapping[str, float] = field(default_factory=dict)
    """``reload``: until the new version listened; ``health``: until it was healthy."""
    error: Failure | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
