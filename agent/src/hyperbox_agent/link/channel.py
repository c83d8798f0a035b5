"""Byte channels: a stream with two directions inside a link, for exec and for forwarded ports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hyperbox_agent.errors import AgentError, LinkLostError, ProtocolError
from hyperbox_agent.link import kinds
from hyperbox_agent.link.fields import dump, load_object
from hyperbox_agent.link.flow import Inlet, Outlet, again
from hyperbox_agent.link.stream import READ_SIZE


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a channel; ``side`` marks the second stream (standard error)."""

    data: bytes
    side: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A word between two bytes: a window size, a signal."""

    body: Mapping[str, Any]


class Channel:
    """One byte channel. It is a ByteStream as well, for those who know no side and no notes.

    How long a channel may be silent is its users' business; what ends with the link are its waits.
    """

    def __init__(self, number: int, inlet: Inlet, outlet: Outlet,
                 accept: Callable[[Mapping[str, Any]], None],
                 close: Callable[[], Awaitable[None]]) -> None:
        self.number = number
        self.inlet = inlet
        self.outlet = outlet
        self._accept = accept
        self._close = close
        self._accepted = False
        self._kept = b""
        self._result: asyncio.Future[Mapping[str, Any]] = (
            asyncio.get_running_loop().create_future())

    def accept(self, body: Mapping[str, Any] | None = None) -> None:
        """Say that the channel is open. Done by itself at the first use."""
        if not self._accepted:
            self._accepted = True
            self._accept(body or {})

    async def receive(self, *, owed: bool = False) -> Data | Note | None:
        """What comes next, None at the end. Raises LinkLostError or the other side's error.

        ``owed``: the other side may send more only when ``consumed`` says that bytes were used.
        """
        self.accept()
        item = await self.inlet.get(owed=owed)
        if item is None:
            return None
        kind, body = item
        if kind == kinds.NOTE:
            return Note(load_object(body, "note"))
        return Data(body, side=kind == kinds.SIDE)

    def consumed(self, count: int) -> None:
        """So many of the bytes that were received ``owed`` have been used."""
        self.inlet.give_back(count)

    async def send(self, data: bytes, *, side: bool = False) -> None:
        """Return when ``data`` is on its way. Waits while the other side doesn't read."""
        self.accept()
        await self.outlet.send(data, kinds.SIDE if side else kinds.DATA)

    async def note(self, body: Mapping[str, Any]) -> None:
        """Put a note behind the bytes sent so far."""
        self.accept()
        await self.outlet.note(dump(dict(body)))

    async def read(self, n: int = READ_SIZE) -> bytes:
        """See ByteStream. Raises ProtocolError for anything but plain bytes."""
        while not self._kept:
            item = await self.receive()
            if item is None:
                return b""
            if isinstance(item, Note) or item.side:
                raise ProtocolError("this channel carries plain bytes only")
            self._kept = item.data
        data, self._kept = self._kept[:n], self._kept[n:]
        return data

    async def write(self, data: bytes) -> None:
        """See ByteStream."""
        await self.send(data)

    async def end(self) -> None:
        """See ByteStream."""
        self.accept()
        await self.outlet.end()

    async def close(self) -> None:
        """End it in both directions; the side that serves it is cancelled."""
        await self._close()

    async def result(self) -> Mapping[str, Any]:
        """What the side that serves the channel returned. Raises its error, or LinkLostError."""
        try:
            return await asyncio.shield(self._result)
        except AgentError as error:
            raise again(error) from None

    def finish(self, result: Mapping[str, Any] | AgentError) -> None:
        """The link says that the channel is over. What had arrived before may still be read."""
        gone = result if isinstance(result, AgentError) else LinkLostError("the channel is over")
        self.outlet.stop(gone)
        if isinstance(result, AgentError):
            self.inlet.fail(result)
        if self._result.done():
            return
        if isinstance(result, AgentError):
            self._result.set_exception(result)
            # Not everybody asks for the result; whoever reads gets the error as well.
            self._result.exception()
        else:
            self._result.set_result(result)
