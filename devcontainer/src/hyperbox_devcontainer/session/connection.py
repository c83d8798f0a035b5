"""The session's hold on the target's agent, over however many links one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hyperbox_agent.core.entries import Change, Entry
from hyperbox_agent.errors import AgentError, LinkLostError, LinkTimeoutError
from hyperbox_agent.link.connection import Link
from hyperbox_agent.link.messages import Configure, Configured
from hyperbox_agent.watch.source import Source
from hyperbox_devcontainer.session.ahead import Ahead
from hyperbox_devcontainer.session.base import Base
from hyperbox_devcontainer.session.connect import Connector, reach_hard
from hyperbox_devcontainer.session.heard import Heard
from hyperbox_devcontainer.session.options import SessionOptions
from hyperbox_devcontainer.session.pulling import Pulling
from hyperbox_devcontainer.session.remote import RemoteAgent

CONFIGURE_TIMEOUT = 60.0
ANSWER = 5.0
"""Seconds that an agent gets for a sign of life before it is ended hard."""


class Connection:
    """At most one living link. Lives on one event loop."""

    def __init__(self, options: SessionOptions, connector: Connector, session_id: str) -> None:
        self._options = options
        self._connector = connector
        self._session_id = session_id
        self._link: Link | None = None
        self._reaching: asyncio.Future[Link] | None = None
        self._early: asyncio.Task[Configured] | None = None
        """The first agent is told what to run while the source is still being read."""
        self._heard = Heard()
        """What it said before the source was read."""
        self._ahead: Ahead | None = None
        self._lost = asyncio.Event()
        self._stopping = False
        self._turn = asyncio.Lock()
        """An agent is reached, or ended, by one at a time."""
        self.adopted = False
        """Whether what runs there was running before us."""

    def begin(self, ahead: Ahead | None) -> None:
        """Begin to reach the agent; ``open`` goes on from there, ``abandon`` ends it. ``ahead``
        begins when the target turns out to be empty, and else ends."""
        self._ahead = ahead
        self._reaching = asyncio.ensure_future(self._connect())
        self._early = asyncio.ensure_future(self._configure_early(self._reaching, ahead))
        # Where nobody comes to ask for it, who asks for the link is told the same.
        self._early.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _configure_early(self, reaching: asyncio.Future[Link],
                               ahead: Ahead | None) -> Configured:
        try:
            link = await asyncio.shield(reaching)
            link.on_notice("events", lambda body: _spread(body, self._heard.put))
            ready = await self._configure(link)
            if ahead is not None and ready.number == 0:
                ahead.begin(link)
            return ready
        finally:
            if ahead is not None and not ahead.begun:
                ahead.decline()

    async def open(self, source: Source, base: Base,
                   on_event: Callable[[Mapping[str, Any]], None],
                   anew: Callable[[Configured], Awaitable[None]],
                   pulling: Pulling | None = None) -> tuple[RemoteAgent, Configured]:
        """Reach the agent and tell it what to run; what its program wrote is taken up first.

        ``anew`` is called with what the target is whenever that had to be learned again.
        Raises AgentError, WorkstationError; of the latter HostileTargetError is final.
        """
        async with self._turn:
            if not self._stopping:
                return await self._open(source, base, on_event, anew, pulling)
        await asyncio.Event().wait()  # until the session, which is ending, cancels it
        raise LinkLostError("the session ends")

    async def _open(self, source: Source, base: Base,
                    on_event: Callable[[Mapping[str, Any]], None],
                    anew: Callable[[Configured], Awaitable[None]],
                    pulling: Pulling | None) -> tuple[RemoteAgent, Configured]:
        early, self._early = self._early, None
        try:
            link, ready = await self._reach_and_learn(early, base, on_event, pulling)
        except LinkLostError:
            if early is None:
                raise
            # It was lost while the source was read: so was what came ahead.
            await self._end_ahead()
            link, ready = await self._reach_and_learn(None, base, on_event, pulling)
        self._link = link
        self.adopted = ready.adopted
        self._lost.clear()
        self._watch(link)

        def read(entry: Entry) -> bytes:
            return source.tree.read(entry)

        async def learn() -> None:
            ready = await self._configure(link)
            await self._learn(ready, link, base, pulling)
            await anew(ready)

        async def before(changes: tuple[Change, ...]) -> None:
            if pulling is not None and pulling.concerns(changes):
                await pulling.take(link)

        mirrored = self._options.mode == "mirror"
        return RemoteAgent(link, read if mirrored else None, base.number, doubt=source.doubt,
                           compress=self._options.compress, learn=learn,
                           before=before, ahead=self._ahead if early is not None else None), ready

    async def _reach_and_learn(self, early: asyncio.Task[Configured] | None, base: Base,
                               on_event: Callable[[Mapping[str, Any]], None],
                               pulling: Pulling | None) -> tuple[Link, Configured]:
        """A link to an agent that was told what to run, and what that has. ``early``: it is being
        told already."""
        try:
            link = await self._reach()
        except BaseException:
            if early is not None:
                early.cancel()
            raise
        try:
            ready = await (self._configure(link) if early is None else early)
            if early is not None and ready.serving is not None:
                ready = await self._configure(link)  # by now it may have ended
            link.on_notice("events", lambda body: _spread(body, on_event))
            self._heard.tell(on_event)
            await self._learn(ready, link, base, pulling)
        except BaseException:
            await _end(link)
            raise
        return link, ready

    async def _configure(self, link: Link) -> Configured:
        """Tell the agent what to run, and ask what it has. Nothing may be on its way to it."""
        asked = Configure(self._session_id, self._options.project, self._options.mode,
                          self._options.tree, self._options.app, self._options.keep,
                          self._options.pull)
        answer = await link.call("configure", asked.as_json(), timeout=CONFIGURE_TIMEOUT)
        return Configured.from_json(answer.body)

    async def _learn(self, ready: Configured, link: Link, base: Base,
                     pulling: Pulling | None) -> None:
        if pulling is not None:
            await pulling.take(link)
        await base.learn(ready, link)

    async def _connect(self) -> Link:
        link = await self._connector.connect()
        if link is None:
            raise AgentError("the agent could not be started")
        return link

    async def _reach(self) -> Link:
        """A link to a living or a new agent. One that is half started when we are cancelled is
        waited for and kept: nobody else could reach it, nor start another one, to end it."""
        reaching, self._reaching = self._reaching, None
        if reaching is None:
            reaching = asyncio.ensure_future(self._connect())
        try:
            return await asyncio.shield(reaching)
        except asyncio.CancelledError:
            await asyncio.wait([reaching])
            if not reaching.cancelled() and reaching.exception() is None:
                self._link = reaching.result()
            raise

    def _watch(self, link: Link) -> None:
        async def watch() -> None:
            await link.closed
            if self._link is link:
                self._link = None
                self._lost.set()

        self._watching = asyncio.ensure_future(watch())

    async def lost(self) -> None:
        """Return when there is no link, unless that is wanted."""
        while True:
            await self._lost.wait()
            if not self._stopping:
                return
            await asyncio.Event().wait()

    def report(self, error: AgentError) -> None:
        """A call failed for want of a link, or of an answer within its time."""
        if isinstance(error, LinkTimeoutError) and self._link is not None:
            # It pings but does not answer: begin anew, else saves would wait for ever.
            self._closing = asyncio.ensure_future(self._link.close("no answer in time"))
            self._link = None
            self._lost.set()
            return
        if self._link is not None and self._link.lost is not None:
            self._link = None
            self._lost.set()

    def silence(self) -> float:
        """Seconds since the agent's last sign of life; 0 without a link."""
        return 0.0 if self._link is None else self._link.silence

    def link(self) -> Link:
        """The living link. Raises LinkLostError."""
        if self._link is None:
            raise LinkLostError(f"{self._options.target} can't be reached",
                                hint="hyperbox status")
        return self._link

    async def ask(self, op: str, body: Mapping[str, Any],
                  timeout: float | None) -> Mapping[str, Any]:
        """An op without a payload. Without a ``timeout`` the target's own limits hold: giving up
        here would leave it going on with what we count as failed."""
        answer = await self.link().call(op, body, timeout=timeout)
        return answer.body

    async def stop(self, *, fast: bool, timeout: float) -> None:
        """End the agent and all that it runs, reaching it anew where the link is lost."""
        self._stopping = True
        async with self._turn:
            link = self._link
            try:
                if link is not None:
                    await _tell_to_stop(link, fast=fast, timeout=timeout)
                    return
            except LinkLostError:
                pass  # it was killed just now: another one ends what it left
            except LinkTimeoutError:
                # It is there and does not listen: its program must not outlive it unseen.
                await self._end_silent(link)
            link = await reach_hard(self._connector)
            if link is not None and not await _stopped(link, fast=fast, timeout=timeout):
                await self._end_silent(link)

    async def _end_silent(self, link: Link | None) -> None:
        if link is not None:
            await link.close("the agent does not answer")
        await self._connector.end_agent()

    async def stop_if_linked(self, *, timeout: float) -> None:
        """As ``stop``, but only where there is a link."""
        if self._link is not None:
            await self.stop(fast=True, timeout=timeout)

    async def abandon(self) -> None:
        """End what ``begin`` began, where nothing went on from there; what serves already stays."""
        reaching, self._reaching = self._reaching, None
        early, self._early = self._early, None
        if early is not None:
            early.cancel()
            await asyncio.wait([early])
        await self._end_ahead()
        if reaching is None:
            return
        await asyncio.wait([reaching])
        if reaching.exception() is None:
            await _end(reaching.result())

    async def _end_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await ahead.close()

    async def close(self) -> None:
        """Let go; what runs goes on."""
        self._stopping = True
        await self._end_ahead()
        link, self._link = self._link, None
        if link is not None:
            await link.close("the session ends")
        await self._connector.close()


async def _end(link: Link) -> None:
    """An agent that could not be configured has nothing to run: it must not stay."""
    try:
        await link.call("stop", {"fast": True, "unless_serving": True}, timeout=5.0)
    except AgentError:
        pass  # it ends by itself when nobody configures it
    await link.close("the target could not be configured")


async def _tell_to_stop(link: Link, *, fast: bool, timeout: float) -> None:
    """Return when it has ended all. Raises LinkLostError, LinkTimeoutError."""
    await link.ping(min(timeout, ANSWER))
    await link.call("stop", {"fast": fast, "leftovers": True}, timeout=timeout)
    await asyncio.wait([asyncio.ensure_future(_closed(link))], timeout=2.0)
    await link.close()


async def _stopped(link: Link, *, fast: bool, timeout: float) -> bool:
    """Whether it took the word, or is gone."""
    try:
        await _tell_to_stop(link, fast=fast, timeout=timeout)
    except LinkLostError:
        return True
    except LinkTimeoutError:
        return False
    return True


async def _closed(link: Link) -> None:
    await link.closed


def _spread(body: Mapping[str, Any], on_event: Callable[[Mapping[str, Any]], None]) -> None:
    dropped = body.get("dropped")
    if isinstance(dropped, int) and dropped:
        on_event({"event": "dropped", "count": dropped})
    events = body.get("events")
    for event in events if isinstance(events, list) else ():
        if isinstance(event, dict):
            on_event(event)
