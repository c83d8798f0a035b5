"""The serving half of a link: calls and byte channels of the peer."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hyperbox_agent.core.frames import Frame
from hyperbox_agent.errors import AgentError, LinkLostError, ProtocolError
from hyperbox_agent.link import kinds
from hyperbox_agent.link.channel import Channel
from hyperbox_agent.link.crossing import encode_error
from hyperbox_agent.link.fields import Fields, dump, load_object
from hyperbox_agent.link.line import Lane, Line, send_payload
from hyperbox_agent.link.payload import Payload


@dataclass(frozen=True, slots=True)
class Request:
    """A call as its handler sees it."""

    op: str
    body: Mapping[str, Any]
    payload: Payload


@dataclass(frozen=True, slots=True)
class Reply:
    """A handler's answer."""

    body: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes | AsyncIterable[bytes] = b""


Handler = Callable[[Request], Awaitable["Reply | Mapping[str, Any] | None"]]
ChannelHandler = Callable[[Mapping[str, Any], Channel], Awaitable["Mapping[str, Any] | None"]]


class Serving:
    """The numbers that the peer gave out."""

    def __init__(self, line: Line, first: int) -> None:
        self._line = line
        self._parity = first % 2
        self._highest = 0
        self._lanes: dict[int, Lane] = {}
        self.handlers: dict[str, Handler] = {}
        self.channel_handlers: dict[str, ChannelHandler] = {}

    def lane(self, number: int) -> Lane | None:
        """The lane of a number; None when it is over. Raises ProtocolError: never called."""
        lane = self._lanes.get(number)
        if lane is None and number > self._highest:
            raise ProtocolError(f"a frame for number {number}, which was never called")
        return lane

    def fail(self, error: AgentError) -> None:
        """The link is over: handlers are cancelled."""
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.fail(error)

    def on_call(self, frame: Frame) -> None:
        """Begin to answer a call."""
        read = Fields(load_object(frame.payload, "call"), "call")
        op, body, has_payload = read.text("op"), read.table("body"), read.flag("payload")
        number = frame.channel
        handler = self._admit(number, self.handlers.get(op), op)
        if handler is None:
            return
        lane = self._lanes[number] = Lane(self._line.inlet(number) if has_payload else None)
        payload = Payload(lane.inlet, self._line.clock, self._line.limits.patience)
        lane.task = self._line.spawn(self._answer(number, lane, handler,
                                                  Request(op, body, payload)))

    def on_open(self, frame: Frame) -> None:
        """Begin to serve a byte channel."""
        read = Fields(load_object(frame.payload, "open"), "open")
        op, body = read.text("op"), read.table("body")
        number = frame.channel
        handler = self._admit(number, self.channel_handlers.get(op), op)
        if handler is None:
            return
        post = self._line.outbox.post
        inlet, outlet = self._line.inlet(number), self._line.outlet(number)
        lane = self._lanes[number] = Lane(inlet, outlet)

        async def close() -> None:
            if lane.task is not None:
                lane.task.cancel()

        channel = Channel(number, inlet, outlet, lambda said: post(
            kinds.REPLY, number, dump({"body": dict(said), "payload": False})), close)
        lane.channel = channel
        lane.task = self._line.spawn(self._serve(channel, handler, body))

    def on_cancel(self, frame: Frame) -> None:
        """The peer waits no more."""
        lane = self.lane(frame.channel)
        if lane is not None:
            lane.fail(LinkLostError("the other side gave it up"))

    def _admit(self, number: int, handler: Any, op: str) -> Any:
        """The handler, or None when the peer was refused. Raises ProtocolError: a wrong number."""
        if number % 2 != self._parity or number <= self._highest:
            raise ProtocolError(f"number {number} can't be called")
        self._highest = number
        if handler is None:
            self._refuse(number, ProtocolError(f"unknown op {op[:80]!r}"))
        elif len(self._lanes) >= self._line.limits.calls:
            handler = None
            self._refuse(number, ProtocolError(
                f"more than {self._line.limits.calls} calls at the same time"))
        return handler

    async def _answer(self, number: int, lane: Lane, handler: Handler,
                      request: Request) -> None:
        try:
            done = await handler(request)
            reply = done if isinstance(done, Reply) else Reply(done or {})
            if self._line.begin(kinds.REPLY, number, {"body": dict(reply.body)}, reply.payload):
                lane.outlet = self._line.outlet(number)
                await send_payload(lane.outlet, reply.payload)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises reaches the caller
            self._refuse(number, error)
        finally:
            self._lanes.pop(number, None)

    async def _serve(self, channel: Channel, handler: ChannelHandler,
                     body: Mapping[str, Any]) -> None:
        number = channel.number
        try:
            result = await handler(body, channel)
            channel.accept()
            await channel.outlet.end()
            # In its place behind the data, not before it as other control frames go.
            await self._line.outbox.data(kinds.DONE, number, dump({"body": dict(result or {})}))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises reaches the opener
            self._refuse(number, error)
        finally:
            self._lanes.pop(number, None)
            channel.finish(LinkLostError("the channel is over"))

    def _refuse(self, number: int, error: Exception) -> None:
        self._line.outbox.post(kinds.ERROR, number, encode_error(error))
