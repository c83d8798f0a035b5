"""Old versions on their way out: drained, ended, buried, in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import PortError
from hyperbox_agent.supervise.instance import Instance, Sink
from hyperbox_agent.supervise.limits import cancel

_REST = 0.003
MOST = 2
"""Instances that may drain at once; the oldest is hurried when there are more."""


class Drains(Protocol):
    """What the port says of a drain."""

    @property
    def cut(self) -> int:
        """Exchanges that were cut at its end."""
        ...


Drain = Callable[[int, float], Coroutine[Any, Any, Drains]]
"""Drain the instance of this serial for so many seconds."""
End = Callable[[Instance], Coroutine[Any, Any, Any]]
"""End an instance completely."""


@dataclass(slots=True)
class _Leaving:
    instance: Instance
    hurry: asyncio.Event
    task: asyncio.Task[None]


class Retiring:
    """All instances that are no longer wanted."""

    def __init__(self, end: End, clock: Clock, sink: Sink) -> None:
        self._end = end
        self._clock = clock
        self._sink = sink
        self._leaving: dict[int, _Leaving] = {}

    @property
    def instances(self) -> list[Instance]:
        """Those that are not gone yet."""
        return [item.instance for item in self._leaving.values()]

    def retire(self, instance: Instance, drain: Drain | None, seconds: float) -> None:
        """Let it end what it is answering, then end it."""
        hurry = asyncio.Event()
        task = asyncio.get_running_loop().create_task(
            self._retire(instance, drain, seconds, hurry))
        serial = instance.identity.serial
        self._leaving[serial] = _Leaving(instance, hurry, task)
        task.add_done_callback(lambda _: self._leaving.pop(serial, None))
        for item in list(self._leaving.values())[:-MOST]:
            item.hurry.set()

    async def _retire(self, instance: Instance, drain: Drain | None, seconds: float,
                      hurry: asyncio.Event) -> None:
        # Whoever put it in its place has been waited for: that one's way first.
        await self._clock.sleep(_REST)
        began = self._clock.now()
        cut = 0
        if drain is not None and instance.child.exit is None:
            cut = await self._drain(instance.identity.serial, drain, seconds, hurry)
        ended = await self._end(instance)
        self._sink({"event": "retired", "number": instance.number, "cut": cut,
                    "killed": len(ended.killed), "left": list(ended.left),
                    "ms": (self._clock.now() - began) * 1000})

    async def _drain(self, serial: int, drain: Drain, seconds: float,
                     hurry: asyncio.Event) -> int:
        waiting = asyncio.ensure_future(drain(serial, seconds))
        hurried = asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait({waiting, hurried}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                return (await drain(serial, 0.0)).cut
            return waiting.result().cut
        except PortError:
            return 0  # nothing comes to it any more, and it is to end all the same
        finally:
            await cancel(waiting, hurried)

    async def close(self) -> None:
        """Hurry them all and wait until they are gone."""
        tasks = [item.task for item in self._leaving.values()]
        for item in self._leaving.values():
            item.hurry.set()
        await asyncio.gather(*tasks, return_exceptions=True)
