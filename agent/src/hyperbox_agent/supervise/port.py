"""The agent's handle on the port holder (what it does and why: PORT.md beside this file)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import PortError
from hyperbox_agent.supervise.holder_control import BUSY, VERSION
from hyperbox_agent.supervise.holder_escrow import start_time
from hyperbox_agent.supervise.peers import PEERS_NAME
from hyperbox_agent.supervise.port_listen import listen
from hyperbox_agent.supervise.port_process import (
    LOG_NAME,
    HolderChannel,
    HolderLostError,
    HolderProcess,
    reach_holder,
    start_holder,
    sweep,
)

DAY = 86400.0
_RESTARTS = 5
_RESTARTS_WITHIN = 10.0
_PAUSE = 1.0
"""After so many deaths (s) within such a time (s), how long (s) before each further holder: one
that can't live must not cost a processor, and one that can must not be given up for ever."""
_STEP = 0.005
_NOTICE = 0.5
"""How long (s) a holder may take to notice that its agent was killed."""


@dataclass(frozen=True, slots=True)
class KeptInstance:
    """An instance that a dead agent left with the holder. Its descriptors are the caller's now."""

    number: int
    pid: int
    start: int | None
    """Its start time in clock ticks (``/proc/PID/stat``), which with the pid names it for ever."""
    alive: bool
    fds: tuple[int, ...]
    info: dict[str, Any]
    log: str | None
    """The file that has what it wrote while there was no agent."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What an adopted holder had."""

    number: int | None
    backend: tuple[str, int] | None
    orphaned_s: float
    instances: tuple[KeptInstance, ...]


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain ended: exchanges that were cut at its end, and how long it took."""

    cut: int
    ms: float


@dataclass(frozen=True, slots=True)
class Held:
    """How a hold began: how long it waited, and how many exchanges are still in flight."""

    waited_ms: float
    busy: int


@dataclass(frozen=True, slots=True)
class NumberStats:
    """What one number did and does."""

    requests: int = 0
    failed: int = 0
    bytes: int = 0
    in_flight: int = 0
    streams: int = 0
    longest_wait_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """The port's figures: by number since each became live, and now."""

    numbers: dict[int, NumberStats]
    live: int | None
    waiting: int
    connections: int
    per_second: float


class Port:
    """One project port. Made by ``open``; calls may raise PortError, but not those that take
    something back.

    A holder that dies is replaced with the same listening socket, at once or, where it dies again
    and again, after a pause; calls wait for it and are asked again.
    """

    def __init__(self, run_dir: str, clock: Clock, settings: dict[str, Any],
                 timeout: float) -> None:
        self._run_dir = run_dir
        self._clock = clock
        self._settings = settings
        self._timeout = timeout
        self._listeners: list[socket.socket] = []
        self._process: HolderProcess | None = None
        self._channel: HolderChannel | None = None
        self._ready = asyncio.Event()
        self._failure: PortError | None = None
        self._closing = False
        self._reviving: asyncio.Task[None] | None = None
        self._deaths: list[float] = []
        self._number = 0
        self._backend: tuple[str, int] | None = None
        self._holding = False
        self._escrow: dict[int, tuple[int, tuple[int, ...], dict[str, Any]]] = {}
        self.address = ("", 0)
        """Where clients connect (the first of the addresses)."""
        self.adopted: Kept | None = None
        """What the holder had, where it was left by a dead agent."""

    @classmethod
    async def open(cls, host: str, port: int, run_dir: str, *, clock: Clock, timeout: float = 10.0,
                   keep_for: float = DAY, max_wait: float | None = None,
                   home: str | None = None) -> Port:
        """Hold ``host:port``: adopt the holder that lives in ``run_dir``, else start one.

        ``keep_for``: how long (s) the holder goes on without any agent. ``max_wait``: how long a
        request may wait for an instance (None: as long as its client does). ``home``: where the
        batch is that the holder has finished when we are killed in the middle of a hold. Raises
        PortError, PortTakenError with the owner where another program has the port.
        """
        settings = {"keep_for": keep_for, "max_wait": max_wait, "home": home}
        handle = cls(run_dir, clock, settings, timeout)
        try:
            await asyncio.wait_for(handle._open(host, port), timeout)
        except asyncio.TimeoutError as error:
            await handle._abandon()
            raise handle._silent() from error
        except BaseException:
            await handle._abandon()
            raise
        host, number = handle._listeners[0].getsockname()[:2]
        handle.address = (host, number)
        return handle

    @property
    def holder_pid(self) -> int:
        """The holder's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def peers_path(self) -> str:
        """The table of client addresses (``HYPERBOX_PEERS``)."""
        return os.path.join(self._run_dir, PEERS_NAME)

    async def switch(self, number: int, backend: tuple[str, int] | None) -> None:
        """New messages go to ``backend`` from now on; None: they wait. Where it raises, they go
        where they went before."""
        before = self._number, self._backend
        self._number, self._backend = number, backend
        body = {"number": number, "backend": backend}
        if backend is None:
            await self._take_back("switch", body)
            return
        try:
            await self._ask("switch", body)
        except PortError:
            self._number, self._backend = before
            raise

    async def drain(self, number: int, seconds: float) -> Drained:
        """Wait until ``number`` has no message in flight; after ``seconds`` cut what is left."""
        reply, _ = await self._ask("drain", {"number": number, "seconds": seconds},
                                   takes=seconds)
        return Drained(reply["cut"], reply["ms"])

    async def hold(self, seconds: float) -> Held:
        """Let no message begin until ``release``; returns when those in flight have ended.

        Streams are not waited for, and nothing for longer than ``seconds``.
        """
        self._holding = True
        reply, _ = await self._ask("hold", {"seconds": seconds}, takes=seconds)
        return Held(reply["waited_ms"], reply["busy"])

    async def release(self) -> None:
        """Let messages begin again."""
        self._holding = False
        await self._take_back("release", {})

    async def keep(self, number: int, pid: int, fds: Sequence[int], info: dict[str, Any]) -> None:
        """Leave copies of an instance's descriptors, and ``info`` (JSON), for a later agent."""
        await self.forget(number)
        copies = tuple(os.dup(fd) for fd in fds)
        self._escrow[number] = (pid, copies, info)
        await self._ask("keep", {"number": number, "pid": pid, "info": info}, copies)

    async def forget(self, number: int) -> None:
        """The instance has ended: give its copies back."""
        kept = self._escrow.pop(number, None)
        if kept is not None:
            close_all(kept[1])
            await self._take_back("forget", {"number": number})

    async def stats(self) -> Stats:
        """Figures by number and of the port as a whole."""
        reply, _ = await self._ask("stats", {})
        stats = reply["stats"]
        numbers = {int(number): NumberStats(**it) for number, it in stats.pop("numbers").items()}
        return Stats(numbers=numbers, **stats)

    async def close(self) -> None:
        """End the holder and every connection; nothing is left. Harmless twice."""
        if self._closing:
            return
        self._closing = True
        await self._revive_no_more()
        channel = self._channel
        if channel is not None:
            try:
                await asyncio.wait_for(channel.ask("close", {}), self._timeout)
            except (HolderLostError, asyncio.TimeoutError):
                pass  # dead already, or stuck: ended below
        await self._end_process()
        self._drop_all()
        sweep(self._run_dir)

    # -- opening ------------------------------------------------------------------------------

    async def _open(self, host: str, port: int) -> None:
        deadline = self._clock.now() + _NOTICE
        while (left := reach_holder(self._run_dir)) is not None:
            channel = HolderChannel(left, self._lost)
            try:
                await self._adopt(channel)
            except HolderLostError:
                channel.close()  # it is ending: look again
            except PortError as error:
                channel.close()
                if BUSY not in error.message:
                    raise
                if self._clock.now() >= deadline:
                    raise PortError("another agent holds this project's port",
                                    hint="hyperbox down ends it") from error
            else:
                if not self._serves(host, port):
                    await self._listen_anew(host, port)
                return
            await self._clock.sleep(_STEP)
        self._listeners = listen(host, port)
        try:
            await self._start()
        except HolderLostError:
            await self._ask("stats", {})  # it died at once, and is being replaced

    def _serves(self, host: str, port: int) -> bool:
        """Whether the adopted sockets are the ones that are wanted."""
        wanted = {"localhost": "127.0.0.1", "": "0.0.0.0"}.get(host, host)  # noqa: S104
        if not self._listeners:
            return False
        served_host, served = self._listeners[0].getsockname()[:2]
        return bool(served_host == wanted and port in (0, served))

    async def _listen_anew(self, host: str, port: int) -> None:
        old, self._listeners = self._listeners, listen(host, port)
        for sock in old:
            sock.close()
        await self._ask("listen", {}, [sock.fileno() for sock in self._listeners])

    async def _adopt(self, channel: HolderChannel) -> None:
        hello, fds = await channel.ask("hello", self._settings)
        self._listeners = [socket.socket(fileno=fd) for fd in fds]
        instances = await self._fetch_all(channel, hello["kept"])
        backend = hello["backend"]
        self._number = hello["number"] or 0
        self._backend = None if backend is None else (backend[0], backend[1])
        self.adopted = Kept(hello["number"], self._backend, hello["orphaned_s"] or 0.0,
                            instances)
        self._process = HolderProcess(hello["pid"], start_time(hello["pid"]), None)
        self._channel = channel
        self._ready.set()
        if hello["version"] != VERSION:
            await self._replace(channel)

    async def _replace(self, channel: HolderChannel) -> None:
        """Its code is another version's: the same sockets go to a holder of ours."""
        process, self._process = self._process, None
        await channel.ask("close", {})
        channel.close()
        self._process = process
        await self._end_process()
        await self._start()

    async def _fetch_all(self, channel: HolderChannel,
                         numbers: Sequence[int]) -> tuple[KeptInstance, ...]:
        found: dict[int, KeptInstance] = {}
        try:
            for number in numbers:
                found[number] = await self._fetch(channel, number)
        except HolderLostError:
            for instance in found.values():
                close_all(instance.fds)
            self._drop_all()
            raise
        return tuple(found.values())

    async def _fetch(self, channel: HolderChannel, number: int) -> KeptInstance:
        reply, fds = await channel.ask("fetch", {"number": number})
        copies = tuple(os.dup(fd) for fd in fds)
        self._escrow[number] = (reply["pid"], copies, reply["info"])
        return KeptInstance(number, reply["pid"], reply["start"], reply["alive"], tuple(fds),
                            reply["info"], reply["log"])

    async def _start(self) -> None:
        """Start a holder and tell it all that is known; it listens last."""
        self._process, sock = start_holder(self._run_dir)
        channel = self._channel = HolderChannel(sock, self._lost)
        await channel.ask("hello", self._settings)
        if self._holding:
            await channel.ask("hold", {"seconds": 0.0})
        await channel.ask("switch", {"number": self._number, "backend": self._backend})
        for number, (pid, fds, info) in self._escrow.items():
            await channel.ask("keep", {"number": number, "pid": pid, "info": info}, fds)
        await channel.ask("listen", {}, [sock.fileno() for sock in self._listeners])
        self._failure = None
        self._ready.set()

    # -- the holder's death -------------------------------------------------------------------

    def _lost(self) -> None:
        self._ready.clear()
        if not self._closing and self._process is not None:
            self._reviving = asyncio.ensure_future(self._revive(self._pause()))

    def _pause(self) -> float:
        now = self._clock.now()
        self._deaths = [at for at in self._deaths if now - at < _RESTARTS_WITHIN] + [now]
        if len(self._deaths) <= _RESTARTS:
            return 0.0
        self._failure = PortError(
            f"the port holder ended {len(self._deaths)} times within {_RESTARTS_WITHIN:g} s",
            file=os.path.join(self._run_dir, LOG_NAME))
        return _PAUSE

    async def _revive(self, pause: float) -> None:
        await self._end_process()
        while True:
            if pause:
                await self._clock.sleep(pause)
            try:
                await self._start()
            except HolderLostError:
                return  # _lost was called again, and counts
            except PortError as error:
                self._failure, pause = error, _PAUSE
            else:
                return

    async def _revive_no_more(self) -> None:
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.wait([self._reviving])

    def _silent(self) -> PortError:
        """What is wrong where no holder answers."""
        return self._failure or PortError(
            f"the port holder did not answer within {self._timeout:g} s")

    async def _answering(self) -> HolderChannel:
        """The channel of a living holder. Raises PortError where none comes within the timeout."""
        if not self._ready.is_set():
            try:
                await asyncio.wait_for(self._ready.wait(), self._timeout)
            except asyncio.TimeoutError as error:
                raise self._silent() from error
        assert self._channel is not None
        return self._channel

    async def _ask(self, op: str, body: dict[str, Any], fds: Sequence[int] = (), *,
                   takes: float = 0.0) -> tuple[dict[str, Any], list[int]]:
        """Ask the holder, and the next one if it dies with the question open.

        A holder that does not answer within what the operation ``takes`` and the timeout is ended.
        """
        while True:
            if self._closing:
                raise PortError("the port is closed")
            channel = await self._answering()
            assert self._process is not None
            pid = self._process.pid
            try:
                return await asyncio.wait_for(channel.ask(op, body, fds), takes + self._timeout)
            except HolderLostError:
                self._ready.clear()
            except asyncio.TimeoutError:
                self._ready.clear()
                os.kill(pid, signal.SIGKILL)

    async def _take_back(self, op: str, body: dict[str, Any]) -> None:
        """Ask for what every further holder does by itself, since it is told no other: where there
        is none now, it is as good as done."""
        with contextlib.suppress(PortError):
            await self._ask(op, body)

    async def _end_process(self) -> None:
        """Wait for the holder's end, and bring it about where it does not come."""
        process = self._process
        if process is None:
            return
        deadline = self._clock.now() + 1.0
        while not process.gone():
            if self._clock.now() >= deadline:
                os.kill(process.pid, signal.SIGKILL)
                deadline += 1.0
            await self._clock.sleep(_STEP)

    async def _abandon(self) -> None:
        """Opening failed: leave nothing of what this handle made."""
        self._closing = True
        await self._revive_no_more()
        started = self._process is not None and self._process.child is not None
        if self._channel is not None:
            self._channel.close()
        if started:
            assert self._process is not None
            os.kill(self._process.pid, signal.SIGKILL)
            await self._end_process()
        self._drop_all()

    def _drop_all(self) -> None:
        if self._channel is not None:
            self._channel.close()
        for sock in self._listeners:
            sock.close()
        self._listeners = []
        for _pid, fds, _info in self._escrow.values():
            close_all(fds)
        self._escrow = {}


def close_all(fds: Sequence[int]) -> None:
    """Give descriptors back."""
    for fd in fds:
        os.close(fd)
