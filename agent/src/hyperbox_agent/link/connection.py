"""The link: one framed connection over any byte stream, with calls in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.frames import Frame, FrameDecoder
from hyperbox_agent.errors import AgentError, LinkLostError, LinkTimeoutError, ProtocolError
from hyperbox_agent.link import kinds
from hyperbox_agent.link.calls import Answer, Calls
from hyperbox_agent.link.channel import Channel
from hyperbox_agent.link.crossing import decode_error, fault
from hyperbox_agent.link.fields import Fields, dump, load_object
from hyperbox_agent.link.flow import U64, again
from hyperbox_agent.link.hello import Hello, HelloScanner, check_peer, not_ours, quote
from hyperbox_agent.link.line import Lane, Limits, Line
from hyperbox_agent.link.outbox import Outbox
from hyperbox_agent.link.serving import ChannelHandler, Handler, Reply, Request, Serving
from hyperbox_agent.link.stream import READ_SIZE, ByteStream, DirectStream
from hyperbox_agent.link.timers import within

FIRST_NUMBER = {"session": 1, "agent": 2}
OTHER = {"session": "agent", "agent": "session"}
UNHEARD = 64
"""Notices that are kept for a listener that is still to come."""

NoticeHandler = Callable[[Mapping[str, Any]], None]

__all__ = ["Answer", "Channel", "Limits", "Link", "Reply", "Request"]


class Link:
    """A connection to one peer. Make it, register handlers, then ``start`` it. One event loop.

    Handlers run as tasks of their own. They are cancelled when the caller no longer waits and when
    the link is lost: what must not stop half way has to shield itself.
    """

    def __init__(self, stream: ByteStream, *, role: str, clock: Clock,
                 limits: Limits | None = None) -> None:
        self.role = role
        self.peer: Hello | None = None
        self.noise = ""
        """What the peer's side printed before its hello."""
        self.lost: AgentError | None = None
        """Why the link is over; None while it is not."""
        self._stream = stream
        self._clock = clock
        self._limits = limits or Limits()
        self._outbox = Outbox(stream, self._lose)
        self._line = Line(self._outbox, clock, self._limits)
        self._calls = Calls(self._line, FIRST_NUMBER[role])
        self._serving = Serving(self._line, FIRST_NUMBER[OTHER[role]])
        self._notice_handlers: dict[str, NoticeHandler] = {}
        self._unheard: list[tuple[str, Mapping[str, Any]]] = []
        self._closed: asyncio.Future[AgentError] = asyncio.get_running_loop().create_future()
        self._decoder = FrameDecoder()
        self._heard = 0.0
        self._pings: dict[bytes, asyncio.Future[None]] = {}
        self._pinged = 0
        self._dispatch: dict[int, Callable[[Frame], None]] = {
            kinds.CALL: self._serving.on_call, kinds.OPEN: self._serving.on_open,
            kinds.CANCEL: self._serving.on_cancel, kinds.REPLY: self._calls.on_reply,
            kinds.ERROR: self._calls.on_error, kinds.DONE: self._calls.on_done,
            kinds.DATA: self._on_data, kinds.SIDE: self._on_data, kinds.NOTE: self._on_data,
            kinds.END: self._on_end, kinds.ABORT: self._on_abort, kinds.CREDIT: self._on_credit,
            kinds.NOTIFY: self._on_notify, kinds.PING: self._on_ping, kinds.PONG: self._on_pong,
            kinds.BYE: self._on_bye}

    # -- life ---------------------------------------------------------------------------------

    async def start(self, hello: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Exchange hellos; gives the peer's. From then on calls are served.

        Raises ProtocolError for a peer that isn't ours, VersionError for another version,
        LinkLostError, LinkTimeoutError; the stream is closed then.
        """
        ours = Hello(self.role, self._limits.window, facts=dict(hello))
        scanner = HelloScanner()
        try:
            theirs, frames, decoder = await within(
                self._clock, timeout, self._greet(ours, scanner), "the hello")
        except LinkTimeoutError as error:
            await self._stop(error)
            said = f"; it said {scanner.said()!r}" if scanner.said() else ""
            raise LinkTimeoutError(error.message + said) from error
        except AgentError as error:
            await self._stop(error)
            raise
        except BaseException:
            await self._stop(LinkLostError("the link was given up before it began"))
            raise
        self.peer = theirs
        self._line.peer_window = theirs.window
        self._heard = self._clock.now()
        self._decoder = decoder
        self._take_all(frames)
        if isinstance(self._stream, DirectStream):
            self._stream.push(self._received, self._ended)
        else:
            self._line.spawn(self._read())
        self._line.spawn(self._watch())
        return dict(theirs.facts)

    @property
    def closed(self) -> Awaitable[AgentError]:
        """Await it for the end of the link; gives the reason and doesn't raise it."""
        return asyncio.shield(self._closed)

    @property
    def silence(self) -> float:
        """Seconds since anything came from the peer."""
        return max(0.0, self._clock.now() - self._heard)

    async def close(self, message: str = "closed") -> None:
        """Say good-bye and end the link. Never fails, may be called again."""
        if self.lost is None and self.peer is not None:
            self._outbox.post(kinds.BYE, 0, dump({"message": message}))
            try:
                await within(self._clock, self._limits.goodbye, self._outbox.flush(), "goodbye")
            except AgentError:
                pass  # a peer that doesn't take our good-bye gets none
        await self._stop(LinkLostError(f"the link was closed here: {message}"))

    # -- calls --------------------------------------------------------------------------------

    def handle(self, op: str, handler: Handler) -> None:
        """Answer calls of ``op``. An AgentError of the handler reaches the caller as itself."""
        self._serving.handlers[op] = handler

    def handle_channel(self, op: str, handler: ChannelHandler) -> None:
        """Serve byte channels that are opened as ``op``; the result reaches the opener."""
        self._serving.channel_handlers[op] = handler

    def on_notice(self, op: str, handler: NoticeHandler) -> None:
        """Be told of ``op``, in order and at once: the link reads on only when it returns.

        What came before somebody listened is told now: the first notices may come with the hello.
        """
        self._notice_handlers[op] = handler
        unheard, self._unheard = self._unheard, []
        for name, body in unheard:
            self._tell(name, body)

    async def call(self, op: str, body: Mapping[str, Any] | None = None,
                   payload: bytes | AsyncIterable[bytes] = b"", *,
                   timeout: float | None) -> Answer:
        """Ask the peer. ``timeout`` counts until its answer begins.

        Raises what the peer's handler raised, ProtocolError for an unknown op or a body over the
        limit, LinkTimeoutError, LinkLostError. When the caller is cancelled or the time is over the
        handler is cancelled too.
        """
        self._check()
        await self._outbox.room()
        return await self._calls.call(op, body or {}, payload, timeout)

    async def notify(self, op: str, body: Mapping[str, Any]) -> None:
        """Tell the peer something; nothing answers. Waits while the peer doesn't read."""
        self._check()
        await self._outbox.room()
        self._outbox.post(kinds.NOTIFY, 0, dump({"op": op, "body": dict(body)}))

    async def open(self, op: str, body: Mapping[str, Any] | None = None, *,
                   timeout: float | None) -> tuple[Channel, Mapping[str, Any]]:
        """Open a byte channel; gives it and what the accepting side said. Raises as ``call``."""
        self._check()
        await self._outbox.room()
        return await self._calls.open(op, body or {}, timeout)

    async def ping(self, timeout: float) -> float:
        """Seconds there and back. Raises LinkTimeoutError, LinkLostError."""
        self._check()
        began = self._clock.now()
        pong = asyncio.get_running_loop().create_future()
        word = self._ping()
        self._check()  # sending it may have shown that nobody is there
        self._pings[word] = pong

        async def answered() -> None:
            await pong

        try:
            await within(self._clock, timeout, answered(), "a ping")
        finally:
            self._pings.pop(word, None)
        return self._clock.now() - began

    # -- beginning and end --------------------------------------------------------------------

    async def _greet(self, ours: Hello,
                     scanner: HelloScanner) -> tuple[Hello, list[Frame], FrameDecoder]:
        try:
            await self._stream.write(ours.encode())
        except LinkLostError:
            pass  # what it said before it ended tells more than that it ended
        while True:
            data = await self._stream.read(READ_SIZE)
            if not data:
                self.noise = scanner.said()
                raise not_ours(self.noise) if self.noise else LinkLostError(
                    "the other side ended before it said anything")
            found = scanner.feed(data)
            if found is not None:
                break
        frame, rest, decoder = found
        self.noise = quote(scanner.noise)
        theirs = Hello.decode(frame)
        check_peer(ours, theirs)
        return theirs, rest, decoder

    async def _stop(self, error: AgentError) -> None:
        self._lose(error)
        await self._stream.close()
        pending = self._line.tasks - {asyncio.current_task()}
        if pending:
            await asyncio.wait(pending, timeout=self._limits.goodbye)

    def _lose(self, error: AgentError) -> None:
        """The one place where a link ends: everything that waits is told, at once."""
        if self.lost is not None:
            return
        self.lost = error
        self._outbox.fail(error)
        gone = error if isinstance(error, LinkLostError) else LinkLostError(
            f"the link was lost: {error.message}", hint=error.hint)
        self._calls.fail(gone)
        self._serving.fail(gone)
        for pong in self._pings.values():
            if not pong.done():
                pong.set_exception(again(gone))
        for task in self._line.tasks - {asyncio.current_task()}:
            task.cancel()
        self._closed.set_result(error)
        self._line.spawn(self._stream.close())

    def _check(self) -> None:
        if self.lost is not None:
            raise again(self.lost) if isinstance(self.lost, LinkLostError) else LinkLostError(
                f"the link was lost: {self.lost.message}", hint=self.lost.hint)

    async def _watch(self) -> None:
        """Keep asking for a sign of life; give the peer up when none comes."""
        limits = self._limits
        while True:
            before = self._clock.now()
            await self._clock.sleep(min(limits.ping, limits.dead / 2))
            now = self._clock.now()
            if now - before > 2 * limits.ping + 1:
                # It was us who were not there (stopped, or the machine slept): the silence proves
                # nothing, but whether the peer is still there must be known soon.
                self._heard = max(self._heard, now - limits.dead + limits.woken)
                self._ping()
                await self._clock.sleep(limits.woken)
                now = self._clock.now()
            silent = now - self._heard
            if silent >= limits.dead:
                self._lose(LinkLostError(
                    f"no sign of life from the {OTHER[self.role]} for {silent:.0f} s"))
                return
            if silent >= limits.ping / 2:
                self._ping()

    def _ping(self) -> bytes:
        self._pinged += 1
        word = U64.pack(self._pinged)
        self._outbox.post(kinds.PING, 0, word)
        return word

    # -- reading ------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while data := await self._stream.read(READ_SIZE):
                self._received(data)
        except LinkLostError as error:
            self._ended(error)
        else:
            self._ended(None)

    def _received(self, data: bytes) -> None:
        self._heard = self._clock.now()
        try:
            frames = self._decoder.feed(data)
        except AgentError as error:
            self._lose(error)
        else:
            self._take_all(frames)

    def _take_all(self, frames: Sequence[Frame]) -> None:
        try:
            for frame in frames:
                self._take(frame)
        except AgentError as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001 - a fault here must end the link, not freeze it
            self._lose(fault(error))

    def _ended(self, broken: LinkLostError | None) -> None:
        pending = self._decoder.pending
        cut = f" in the middle of a frame, {pending} bytes of it had come" if pending else ""
        why = f": {broken.message}" if broken is not None else ""
        self._lose(LinkLostError(f"the {OTHER[self.role]} is gone{cut}{why}"))

    def _take(self, frame: Frame) -> None:
        handler = self._dispatch.get(frame.kind)
        if handler is None:
            raise ProtocolError(f"a frame of unknown kind {frame.kind}")
        handler(frame)

    def _lane(self, number: int) -> Lane | None:
        ours = number % 2 == FIRST_NUMBER[self.role] % 2
        return self._calls.lane(number) if ours else self._serving.lane(number)

    def _on_data(self, frame: Frame) -> None:
        lane = self._lane(frame.channel)
        if lane is None:
            return  # it was on the way when the number was given up
        if lane.inlet is None or (frame.kind != kinds.DATA and lane.channel is None):
            raise ProtocolError(f"number {frame.channel} carries nothing of this kind")
        lane.inlet.feed(frame.kind, frame.payload)

    def _on_end(self, frame: Frame) -> None:
        lane = self._lane(frame.channel)
        if lane is None:
            return
        if lane.inlet is None:
            raise ProtocolError(f"number {frame.channel} carries no payload")
        lane.inlet.end(frame.payload)
        self._calls.on_end(frame.channel)

    def _on_abort(self, frame: Frame) -> None:
        lane = self._lane(frame.channel)
        if lane is not None and lane.inlet is not None:
            lane.inlet.fail(decode_error(frame.payload))

    def _on_credit(self, frame: Frame) -> None:
        if len(frame.payload) != U64.size:
            raise ProtocolError("a credit that is no number")
        lane = self._lane(frame.channel)
        if lane is not None and lane.outlet is not None:
            lane.outlet.grant(U64.unpack(frame.payload)[0])

    def _on_notify(self, frame: Frame) -> None:
        read = Fields(load_object(frame.payload, "notify"), "notify")
        self._tell(read.text("op"), read.table("body"))

    def _tell(self, op: str, body: Mapping[str, Any]) -> None:
        handler = self._notice_handlers.get(op)
        if handler is not None:
            handler(body)
        elif len(self._unheard) < UNHEARD:
            self._unheard.append((op, body))

    def _on_ping(self, frame: Frame) -> None:
        self._outbox.post(kinds.PONG, 0, frame.payload[:U64.size])

    def _on_pong(self, frame: Frame) -> None:
        pong = self._pings.get(frame.payload)
        if pong is not None and not pong.done():
            pong.set_result(None)

    def _on_bye(self, frame: Frame) -> None:
        said = quote(Fields(load_object(frame.payload, "bye"), "bye").text("message").encode())
        raise LinkLostError(f"the {OTHER[self.role]} closed the link: {said}")
