"""The agent as a server: one host, reached over whichever link is the newest.

The loss of a link leaves the program running; the next session comes over ``run/agent.sock``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, TypeVar

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.entries import Change
from hyperbox_agent.errors import AgentError, ProtocolError
from hyperbox_agent.home import private_folder
from hyperbox_agent.link.ahead import ahead_op
from hyperbox_agent.link.connection import Link, Reply, Request
from hyperbox_agent.link.events import EventPump
from hyperbox_agent.link.execution import serve_exec
from hyperbox_agent.link.fields import Fields
from hyperbox_agent.link.messages import (
    Configure,
    Configured,
    GenerationRequest,
    RollbackRequest,
    SettleRequest,
    SupersedeRequest,
    pack_manifest,
)
from hyperbox_agent.link.only import OnlyAgent
from hyperbox_agent.link.pulls import pull_ops
from hyperbox_agent.link.serving import Handler
from hyperbox_agent.link.stream import ByteStream, socket_stream, stdio_stream
from hyperbox_agent.link.version import VERSION
from hyperbox_agent.supervise.host import Host, HostConfig
from hyperbox_agent.supervise.process import become_subreaper
from hyperbox_langpacks.base import Rung

HELLO_TIMEOUT = 10.0
ORPHANED = 86400.0
"""Seconds after which an agent whose session never came back ends itself and its program."""
UNCONFIGURED = 30.0
"""The same for an agent that was never told what to run."""

ACCEPT_PAUSE = 0.2
"""Seconds until an accept that failed is tried again."""

SWITCH = 0.0005
"""Seconds until the thread that lays out files must let the loop go on, and the other way round:
with Python's 5 ms a first sync takes a tenth longer."""

T = TypeVar("T")


class AgentServer:
    """Serves one host. Lives on one event loop."""

    def __init__(self, home: str, clock: Clock) -> None:
        self.home = home
        self.events = EventPump()
        self.host = Host(home, clock, self.events.put, room=self.events.room,
                         locate=self._locate)
        self.finished = asyncio.Event()
        self._clock = clock
        self._link: Link | None = None
        self._pump: asyncio.Task[None] | None = None
        self._orphaned: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, stream: ByteStream) -> None:
        """Serve one link until it ends. A newer link takes over from an older one."""
        link = Link(stream, role="agent", clock=self._clock)
        self._register(link)
        try:
            await link.start({"version": VERSION, "pid": os.getpid()}, HELLO_TIMEOUT)
        except AgentError:
            return
        await self._take_over(link)
        await link.closed
        if self._link is link:
            self._let_go()

    async def _take_over(self, link: Link) -> None:
        old, self._link = self._link, link
        if self._orphaned is not None:
            self._orphaned.cancel()
            self._orphaned = None
        if self._pump is not None:
            self._pump.cancel()
        if old is not None:
            await old.close("a newer session took over")
            self.host.supersede_all()
        self._pump = self._spawn(self.events.run(link))

    def _let_go(self) -> None:
        self._link = None
        if self._pump is not None:
            self._pump.cancel()
        # Nobody can settle what is under way any more; what is settled goes on to its end.
        self.host.supersede_all()
        self._orphaned = self._spawn(self._end_as_orphan())

    async def _end_as_orphan(self) -> None:
        await self._clock.sleep(UNCONFIGURED if self.host.config is None else ORPHANED)
        await self.host.stop()
        self.finished.set()

    async def close(self) -> None:
        """End the link and everything that runs."""
        await self.host.stop()
        if self._link is not None:
            await self._link.close("the agent ends")
        for task in list(self._tasks):
            task.cancel()

    def _spawn(self, work: Awaitable[T]) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _whole(self, work: Awaitable[T]) -> T:
        """Finish ``work`` even if the link that asked for it is lost half way."""
        return await asyncio.shield(self._spawn(work))

    async def _locate(self, number: int) -> str | None:
        """Where the content of a generation is now, before it is started again.

        A mirrored tree has it itself. In place the source may have been edited since, so the
        session is asked; without one, where it ran last is all there is. None: nowhere just now.
        """
        root = self.host.supervisor.root
        if self.host.mirrors or self._link is None:
            return root
        try:
            answer = await self._link.call("locate", {"number": number}, timeout=30.0)
        except AgentError:
            return None  # the source must not be started under an older one's number
        found = answer.body.get("root")
        return found if isinstance(found, str) else None

    # -- ops ----------------------------------------------------------------------------------

    def _register(self, link: Link) -> None:
        handlers: Mapping[str, Handler] = {
            "configure": self._configure, "manifest": self._manifest, "missing": self._missing,
            "ahead": ahead_op(self.host.ahead), "generation": self._generation,
            "settle": self._settle, "supersede": self._supersede, "kept": self._kept,
            "rollback": self._rollback, "restart": self._restart, "status": self._status,
            "feed": self._feed, "stop": self._stop, **pull_ops(self.host),
        }
        for op, handler in handlers.items():
            link.handle(op, handler)
        link.handle_channel("exec", lambda body, channel: serve_exec(self.host, body, channel))

    async def _configure(self, request: Request) -> Mapping[str, Any]:
        asked = Configure.from_json(request.body)
        ready = await self._whole(self.host.configure(HostConfig(
            asked.session, asked.project, asked.mode, asked.root, asked.app,
            asked.keep, asked.pull)))
        return Configured(ready.adopted, ready.base or 0, ready.state, ready.serving,
                          {"detection": dict(ready.detection),
                           "foreign": list(self.host.foreign())}).as_json()

    async def _manifest(self, request: Request) -> Reply:
        return Reply({}, pack_manifest(await self.host.manifest()))

    async def _kept(self, request: Request) -> Mapping[str, Any]:
        return {"kept": list(await self.host.kept())}

    async def _missing(self, request: Request) -> Reply:
        asked = await request.payload.read()
        digests = [asked[at:at + 32] for at in range(0, len(asked), 32)]
        return Reply({}, b"".join(await self.host.missing(digests)))

    async def _generation(self, request: Request) -> Mapping[str, Any]:
        # Before anything is awaited: the word that it is settled may be the very next frame.
        number = Fields(request.body, "generation").number("number", least=1)
        self.host.expect(number)
        try:
            head = await request.payload.exactly(GenerationRequest.head_length(request.body))
            asked = GenerationRequest.unpack(request.body, head)
            changes = await self._changes(asked)
        except BaseException:
            self.host.expect_no_more(number)
            raise
        blobs = _blobs(request) if self.host.mirrors else None
        outcome = await self._whole(self.host.generation(
            asked.number, changes, settled=asked.settled, first=asked.first,
            lowest=_rung(asked.lowest), blobs=blobs, base=asked.base))
        return outcome.as_json()

    async def _changes(self, asked: GenerationRequest) -> tuple[Change, ...]:
        if not self.host.mirrors:
            return asked.as_told()
        if asked.ahead:
            return tuple(await self.host.complete(asked.ahead, asked.as_told()))
        return asked.against(self.host.recorded)

    async def _settle(self, request: Request) -> None:
        self.host.settle(SettleRequest.from_json(request.body).number)

    async def _supersede(self, request: Request) -> None:
        self.host.supersede(SupersedeRequest.from_json(request.body).number)

    async def _rollback(self, request: Request) -> Mapping[str, Any]:
        asked = RollbackRequest.from_json(request.body)
        root = request.body.get("root")
        outcome = await self._whole(self.host.rollback(
            asked.to, root if isinstance(root, str) else None))
        return outcome.as_json()

    async def _restart(self, request: Request) -> Mapping[str, Any]:
        rung = request.body.get("rung")
        return await self._whole(self.host.restart(None if rung is None else _rung(rung)))

    async def _status(self, request: Request) -> Mapping[str, Any]:
        return self.host.status()

    async def _feed(self, request: Request) -> None:
        await self.host.feed(await request.payload.read())

    async def _stop(self, request: Request) -> Mapping[str, Any]:
        """End the program and this agent. ``leftovers``: of a dead agent, too. ``unless_serving``:
        only where nothing answers."""
        if request.body.get("unless_serving") and await self.host.comes_to_serve():
            return {"ended": False}
        ended = self.host.config is not None
        try:
            if not ended and request.body.get("leftovers"):
                ended = await self._whole(self.host.take_leftovers())
            await self._whole(self.host.stop(fast=bool(request.body.get("fast"))))
        finally:
            # The answer, be it an error, goes out before the process ends.
            asyncio.get_running_loop().call_later(0.05, self.finished.set)
        return {"ended": ended}


def _rung(word: object) -> Rung:
    """The rung that a peer named. Raises ProtocolError."""
    for rung in Rung:
        if rung.word == str(word).lower():
            return rung
    raise ProtocolError(f"there is no rung {str(word)[:40]!r}", key="rung",
                        hint=f"one of {', '.join(rung.word for rung in Rung)}")


async def _blobs(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.payload:
        yield piece


# -- the process --------------------------------------------------------------------------------


def serve(home: str) -> int:
    """Serve standard input and output, then whoever connects; gives the exit status."""
    try:
        private_folder(home)
        only = OnlyAgent(home)
    except AgentError as error:
        sys.stderr.write(f"hyperbox-agent: {error.message}\n")
        return 1
    try:
        return asyncio.run(_serve(home, only.run))
    finally:
        only.close()


async def _serve(home: str, run: str) -> int:
    become_subreaper()
    sys.setswitchinterval(SWITCH)
    server = AgentServer(home, SystemClock())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.finished.set)
    path = os.path.join(run, "agent.sock")
    listener = _listen(path)
    accepting = asyncio.ensure_future(_accept(listener, server))
    first = asyncio.ensure_future(server.serve(stdio_stream()))
    try:
        await server.finished.wait()
        await server.close()
    finally:
        accepting.cancel()
        first.cancel()
        listener.close()
        os.unlink(path)
    return 0


def _listen(path: str) -> socket.socket:
    if os.path.lexists(path):
        os.unlink(path)  # we hold the lock: whoever made it is dead
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(8)
    listener.setblocking(False)
    return listener


async def _accept(listener: socket.socket, server: AgentServer) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    while True:
        try:
            peer, _ = await loop.sock_accept(listener)
        except OSError as error:
            # No descriptor is left, or the peer has gone: the next one must find us listening.
            sys.stderr.write(f"hyperbox-agent: a link could not be taken: {error.strerror}\n")
            await asyncio.sleep(ACCEPT_PAUSE)
            continue
        if not _is_owner(peer):
            peer.close()
            continue
        task = asyncio.ensure_future(server.serve(socket_stream(peer)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _is_owner(peer: socket.socket) -> bool:
    """Whether the other end belongs to our user or to root (SO_PEERCRED, unix(7))."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid = int.from_bytes(raw[4:8], sys.byteorder)
    return uid in (0, os.geteuid())
