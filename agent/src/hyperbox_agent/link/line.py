"""What the two halves of a link share: the way out, the limits, and the tasks that it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import AgentError, LinkLostError
from hyperbox_agent.link import kinds
from hyperbox_agent.link.channel import Channel
from hyperbox_agent.link.crossing import encode_error
from hyperbox_agent.link.fields import dump
from hyperbox_agent.link.flow import U64, Inlet, Outlet, whole
from hyperbox_agent.link.outbox import Outbox

SMALL = 64 * 1024
"""Bytes of a payload that may go past other channels' data, together with its head."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a link allows itself and its peer. Seconds and bytes."""

    window: int = 2 << 20
    """Unread bytes per channel and direction: bounds memory, and throughput on long ways."""
    calls: int = 256
    """Calls and channels of the peer that are served at the same time."""
    patience: float = 60.0
    """How long a payload may stand still while its reader waits for it."""
    ping: float = 2.0
    dead: float = 30.0
    """Without a sign of life for so long the peer is given up. Its loop may be busy for seconds
    (the first scan of a big tree on a board)."""
    woken: float = 2.0
    """What a peer gets to answer after this machine itself was stopped or asleep."""
    goodbye: float = 1.0


@dataclass(slots=True)
class Lane:
    """One number that is in use: its two directions, as far as there are any."""

    inlet: Inlet | None = None
    outlet: Outlet | None = None
    channel: Channel | None = None
    task: asyncio.Task[None] | None = None
    """What works for this number here: a handler, or the sender of a call's payload."""

    def fail(self, error: AgentError) -> None:
        """It is over: whoever reads or writes on it gets ``error``."""
        if self.inlet is not None:
            self.inlet.fail(error)
        if self.outlet is not None:
            self.outlet.stop(error)
        if self.channel is not None:
            self.channel.finish(error)
        if self.task is not None:
            self.task.cancel()


@dataclass(slots=True)
class Line:
    """Shared by the calling and the serving half."""

    outbox: Outbox
    clock: Clock
    limits: Limits
    peer_window: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` as a task that ends with the link."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def begin(self, kind: int, number: int, body: dict[str, Any],
              payload: bytes | AsyncIterable[bytes]) -> bool:
        """Send the head of a call or a reply; True where its payload is still to be sent.

        A small payload goes out with its head: one write and one wake-up of the peer for a save.
        """
        if not isinstance(payload, bytes):
            self.outbox.post(kind, number, dump({**body, "payload": True}))
            return True
        small = 0 < len(payload) <= min(SMALL, self.peer_window)
        self.outbox.post(kind, number, dump({**body, "payload": bool(payload)}),
                         behind=whole(number, payload) if small else b"")
        return bool(payload) and not small

    def inlet(self, number: int) -> Inlet:
        """A receiving half for ``number``."""
        return Inlet(self.limits.window,
                     lambda count: self.outbox.post(kinds.CREDIT, number, U64.pack(count)))

    def outlet(self, number: int) -> Outlet:
        """A sending half for ``number``."""
        return Outlet(self.outbox, number, self.peer_window)


async def send_payload(outlet: Outlet, payload: bytes | AsyncIterable[bytes]) -> None:
    """All of ``payload``, then its end; an abort where its source fails. Never raises for what the
    source or the link does: the reader is told, and the link tells its own."""
    try:
        if isinstance(payload, bytes):
            await outlet.send(payload)
        else:
            async for piece in payload:
                await outlet.send(piece)
        await outlet.end()
    except LinkLostError:
        return  # nobody reads any more
    except Exception as error:  # noqa: BLE001 - whatever a source raises must reach the reader
        try:
            await outlet.abort(encode_error(error))
        except AgentError:
            return  # the link went meanwhile
    finally:
        if isinstance(payload, AsyncIterator) and hasattr(payload, "aclose"):
            await payload.aclose()
