"""The calling half of a link: our calls and the byte channels that we opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hyperbox_agent.core.frames import Frame
from hyperbox_agent.errors import AgentError, LinkLostError, LinkTimeoutError, ProtocolError
from hyperbox_agent.link import kinds
from hyperbox_agent.link.channel import Channel
from hyperbox_agent.link.crossing import decode_error
from hyperbox_agent.link.fields import Fields, dump, load_object
from hyperbox_agent.link.flow import again
from hyperbox_agent.link.line import Lane, Line, send_payload
from hyperbox_agent.link.payload import Payload
from hyperbox_agent.link.timers import after

LAST_NUMBER = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came back with. The payload must be read to its end, or closed."""

    body: Mapping[str, Any]
    payload: Payload


class Calls:
    """The numbers that this side gave out."""

    def __init__(self, line: Line, first: int) -> None:
        self._line = line
        self._first = first
        self._next = first
        self._lanes: dict[int, Lane] = {}
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    async def call(self, op: str, body: Mapping[str, Any],
                   payload: bytes | AsyncIterable[bytes], timeout: float | None) -> Answer:
        """See ``Link.call``."""
        number = self._number()
        lane = Lane()

        def begin() -> None:
            head = {"op": op, "body": dict(body)}
            if self._line.begin(kinds.CALL, number, head, payload):
                lane.outlet = self._line.outlet(number)
                lane.task = self._line.spawn(send_payload(lane.outlet, payload))

        return await self._answer(number, lane, op, timeout, begin)

    async def open(self, op: str, body: Mapping[str, Any],
                   timeout: float | None) -> tuple[Channel, Mapping[str, Any]]:
        """See ``Link.open``."""
        number = self._number()

        async def close() -> None:
            self.give_up(number)

        inlet, outlet = self._line.inlet(number), self._line.outlet(number)
        channel = Channel(number, inlet, outlet, lambda _said: None, close)
        answer = await self._answer(
            number, Lane(inlet, outlet, channel), op, timeout,
            lambda: self._line.outbox.post(
                kinds.OPEN, number, dump({"op": op, "body": dict(body)})))
        return channel, answer.body

    def lane(self, number: int) -> Lane | None:
        """The lane of a number; None when it is over. Raises ProtocolError: never given out."""
        lane = self._lanes.get(number)
        if lane is None and number >= self._next:
            raise ProtocolError(f"a frame for number {number}, which was never called")
        return lane

    def give_up(self, number: int) -> None:
        """Don't want more of it: the peer is told to stop."""
        lane = self._lanes.pop(number, None)
        if lane is not None:
            self._line.outbox.post(kinds.CANCEL, number)
            lane.fail(LinkLostError("it was given up here"))

    def fail(self, error: AgentError) -> None:
        """The link is over: everything that waits gets ``error``."""
        lanes, self._lanes = self._lanes, {}
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            _refuse(future, error)
        for lane in lanes.values():
            lane.fail(error)

    def on_reply(self, frame: Frame) -> None:
        """The answer to a call, or the acceptance of a channel."""
        read = Fields(load_object(frame.payload, "reply"), "reply")
        body, has_payload = read.table("body"), read.flag("payload")
        number = frame.channel
        lane = self.lane(number)
        if lane is None:
            return  # given up before it came
        future = self._waiting.pop(number, None)
        if future is None or (lane.channel is not None and has_payload):
            raise ProtocolError(f"a second answer to number {number}")

        async def close() -> None:
            self.give_up(number)

        if has_payload:
            lane.inlet = self._line.inlet(number)
            payload = Payload(lane.inlet, self._line.clock, self._line.limits.patience, close)
        else:
            payload = Payload(None, self._line.clock, None)
            if lane.channel is None:
                self._over(number)
        if not future.done():
            future.set_result(Answer(body, payload))

    def on_error(self, frame: Frame) -> None:
        """A call failed, or a channel did."""
        error = decode_error(frame.payload)
        lane = self.lane(frame.channel)
        if lane is None:
            return
        future = self._waiting.pop(frame.channel, None)
        del self._lanes[frame.channel]
        lane.fail(error)
        if future is not None:
            _refuse(future, error)

    def on_done(self, frame: Frame) -> None:
        """A channel is over."""
        body = Fields(load_object(frame.payload, "done"), "done").table("body")
        lane = self.lane(frame.channel)
        if lane is None:
            return
        if lane.channel is None or frame.channel in self._waiting:
            raise ProtocolError(f"number {frame.channel} is no open channel")
        del self._lanes[frame.channel]
        lane.channel.finish(body)

    def on_end(self, number: int) -> None:
        """All of a reply's payload has arrived: a call needs its number no more."""
        lane = self._lanes.get(number)
        if lane is not None and lane.channel is None:
            self._over(number)

    async def _answer(self, number: int, lane: Lane, op: str, timeout: float | None,
                      begin: Callable[[], None]) -> Answer:
        """``begin`` sends it: a link that proves to be lost by that must find us waiting."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._lanes[number], self._waiting[number] = lane, future
        try:
            begin()
        except BaseException:
            del self._lanes[number], self._waiting[number]  # nothing of it went out
            raise
        timer = None if timeout is None else after(
            self._line.clock, timeout, lambda: _refuse(future, LinkTimeoutError(
                f"{op}: no answer within {timeout:g} s")))
        try:
            return await future
        except BaseException:
            # Refused by the peer: there is nothing left to give up. Else it is still at work.
            self.give_up(number)
            raise
        finally:
            self._waiting.pop(number, None)
            if timer is not None:
                timer.cancel()

    def _over(self, number: int) -> None:
        lane = self._lanes.pop(number)
        if lane.task is not None:
            # It was answered, so nobody reads the rest of what it was asked with.
            lane.task.cancel()

    def _number(self) -> int:
        number = self._next
        if number > LAST_NUMBER:
            raise LinkLostError("all numbers of this link are used up", hint="connect again")
        self._next += 2
        return number


def _refuse(future: asyncio.Future[Answer], error: AgentError) -> None:
    if not future.done():
        future.set_exception(again(error))
