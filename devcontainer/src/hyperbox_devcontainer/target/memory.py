"""The memory target: files are a dict, programs are coroutines, and everything can go wrong.

Shipped, not only tested with: it is the smallest example of what a target has to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hyperbox_agent.errors import LinkLostError
from hyperbox_agent.link.memory import MemoryStream, memory_pair
from hyperbox_agent.link.stream import ByteStream
from hyperbox_devcontainer.errors import TargetError
from hyperbox_devcontainer.target.base import Ran
from hyperbox_devcontainer.target.edge import (
    check_absolute,
    check_argv,
    limited,
    mapped,
    not_found,
)
from hyperbox_devcontainer.target.forwarding import StreamForward

FAULT_STATUS = 70
"""What a program that raises ends with (EX_SOFTWARE)."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the memory target."""

    data: bytes
    mode: int = 0o644


@dataclass(slots=True)
class Call:
    """How a program was started, and where it says what is wrong."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    target: MemoryTarget
    err: bytearray = field(default_factory=bytearray)


Program = Callable[[Call, ByteStream], Awaitable[int | None]]
"""Reads its input from the stream and writes its output to it; gives its exit status, None is 0."""

Listener = Callable[[ByteStream], Awaitable[object]]


class MemoryTarget:
    """A target in this process. Programs are looked up by the first word of their command."""

    kind = "memory"

    def __init__(self, name: str = "memory", *, programs: Mapping[str, Program] | None = None,
                 env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.python: str | None = None
        self.programs: dict[str, Program] = dict(programs or {})
        self.listeners: dict[int, Listener] = {}
        self.files: dict[str, File] = {}
        self.env: dict[str, str] = dict(env or {})
        self.streams: list[MemoryStream] = []
        """This side's ends of the streams that were opened, oldest first: hooks for tests."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._forwards: list[StreamForward] = []
        self._failing: list[str] = []
        self._going_on = asyncio.Event()
        self._going_on.set()
        self._gone: str | None = None
        self._closed = False

    # -- hooks --------------------------------------------------------------------------------

    def fail_next(self, *messages: str) -> None:
        """The next calls raise TargetError with these messages, one each."""
        self._failing.extend(messages)

    def stall(self) -> None:
        """Calls and open streams stand still until ``go_on``."""
        self._going_on.clear()
        for stream in self.streams:
            stream.stall()

    def go_on(self) -> None:
        """The end of ``stall``."""
        self._going_on.set()
        for stream in self.streams:
            stream.go_on()

    def cut_streams(self) -> None:
        """Every open stream breaks now. Programs go on until they notice."""
        streams, self.streams = self.streams, []
        for stream in streams:
            stream.fail_now("the stream was cut")

    def vanish(self, why: str = "it is gone") -> None:
        """The place is gone: programs die, streams break, calls raise until ``recreate``."""
        self._gone = why
        self.cut_streams()
        for task in self._tasks:
            task.cancel()

    def recreate(self) -> None:
        """A new place under the old name: nothing of the old one is left."""
        self.vanish()
        self.files.clear()
        self.listeners.clear()
        self._gone = None

    # -- Target -------------------------------------------------------------------------------

    async def open(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None,
                   survives: bool = False, timeout: float) -> MemoryStream:
        """See Target. A program here always survives its stream: it is for it to notice."""
        words = check_argv(self.name, argv)
        await self._reach(words[0], timeout)
        ours, theirs = memory_pair()
        self._run(self._program(words), self._call(words, env), theirs)
        self.streams.append(ours)
        return ours

    async def run(self, argv: Sequence[str], *, input: bytes = b"",  # noqa: A002
                  env: Mapping[str, str] | None = None, timeout: float) -> Ran:
        """See Target."""
        words = check_argv(self.name, argv)
        await self._reach(words[0], timeout)
        call = self._call(words, env)
        return await limited(self.name, words[0], timeout,
                             self._communicate(self._program(words), call, input))

    async def put(self, path: str, data: bytes, *, mode: int = 0o644, timeout: float) -> None:
        """See Target."""
        check_absolute(self.name, path)
        await self._reach(f"writing {path}", timeout)
        parents = [path[:at] for at, char in enumerate(path) if char == "/"]
        if any(parent in self.files for parent in parents):
            raise TargetError(f"{self.name}: writing {path}: a parent is not a folder",
                              target=self.name, file=path)
        self.files[path] = File(bytes(data), mode)

    async def forward(self, port: int, *, timeout: float) -> StreamForward:
        """See Target."""
        if not 0 < port < 65536:
            raise TargetError(f"{self.name}: {port} is no port", target=self.name)
        await self._reach(f"forwarding {port}", timeout)

        async def connect() -> ByteStream:
            listener = self.listeners.get(port)
            if listener is None or self._gone is not None:
                raise TargetError(f"{self.name}: nothing listens on {port}", target=self.name)
            ours, theirs = memory_pair()
            self._spawn(_listen(listener, theirs))
            return ours

        with mapped(self.name, f"forwarding {port}"):
            forward = StreamForward.start(connect)
        self._forwards.append(forward)
        return forward

    async def close(self) -> None:
        """See Target."""
        self._closed = True
        for forward in self._forwards:
            await forward.close()
        self.cut_streams()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- programs -----------------------------------------------------------------------------

    async def _reach(self, what: str, timeout: float) -> None:
        await limited(self.name, what, timeout, self._wait_stalled())
        if self._closed:
            raise TargetError(f"{self.name} was closed", target=self.name)
        if self._failing:
            raise TargetError(f"{self.name}: {what}: {self._failing.pop(0)}", target=self.name)
        if self._gone is not None:
            raise TargetError(f"{self.name}: {what}: {self._gone}", target=self.name)

    async def _wait_stalled(self) -> None:
        await self._going_on.wait()

    def _program(self, argv: tuple[str, ...]) -> Program:
        program = self.programs.get(argv[0])
        if program is None:
            raise not_found(self.name, argv[0])
        return program

    def _call(self, argv: tuple[str, ...], env: Mapping[str, str] | None) -> Call:
        return Call(argv, {**self.env, **(env or {})}, self)

    def _run(self, program: Program, call: Call, stream: MemoryStream) -> None:
        async def run() -> None:
            await _status(program, call, stream)

        self._spawn(run())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _communicate(self, program: Program, call: Call, data: bytes) -> Ran:
        ours, theirs = memory_pair()
        running = asyncio.ensure_future(_status(program, call, theirs))
        feeding = asyncio.ensure_future(_feed(ours, data))
        try:
            held = []
            while piece := await ours.read():
                held.append(piece)
            return Ran(await running, b"".join(held), bytes(call.err))
        finally:
            running.cancel()
            feeding.cancel()
            await asyncio.wait({running, feeding})
            await ours.close()


async def _status(program: Program, call: Call, stream: MemoryStream) -> int:
    try:
        return await program(call, stream) or 0
    except LinkLostError:
        return 128 + 13  # as SIGPIPE ends who writes to nobody
    except Exception as error:  # noqa: BLE001 - a program that fails is a result, as everywhere
        call.err += f"{type(error).__name__}: {error}\n".encode()
        return FAULT_STATUS
    finally:
        await stream.close()


async def _listen(listener: Listener, stream: MemoryStream) -> None:
    try:
        await listener(stream)
    except LinkLostError:
        return  # the client went
    finally:
        await stream.close()


async def _feed(stream: MemoryStream, data: bytes) -> None:
    try:
        await stream.write(data)
        await stream.end()
    except LinkLostError:
        return  # a program need not read all of its input
