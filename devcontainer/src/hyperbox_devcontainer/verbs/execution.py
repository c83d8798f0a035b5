"""``exec`` on the session's end: a command's bytes carried over one connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from hyperbox_devcontainer.errors import VerbError
from hyperbox_devcontainer.verbs.errors import error_json
from hyperbox_devcontainer.verbs.protocol import (
    FRAME_HEAD,
    MAX_FRAME,
    STDIN_WINDOW,
    FrameKind,
    frame,
    parse_frame_head,
)
from hyperbox_devcontainer.verbs.session import ByteChannel, ExecRequest, SessionLike

_OUTPUT = {1: FrameKind.STDOUT, 2: FrameKind.STDERR}


async def start(session: SessionLike, args: Mapping[str, Any]) -> ByteChannel:
    """Start what ``args`` ask for. Raises VerbError where they are wrong."""
    return await session.exec(_request(args))


def _request(args: Mapping[str, Any]) -> ExecRequest:
    argv = args.get("argv")
    env = args.get("env") or {}
    if not isinstance(argv, list) or not argv or not all(isinstance(a, str) for a in argv):
        raise VerbError("exec needs a command", key="argv")
    if not isinstance(env, dict):
        raise VerbError("env must be an object", key="env")
    return ExecRequest(
        argv=tuple(argv), tty=bool(args.get("tty")), stdin=bool(args.get("stdin")),
        rows=_size(args, "rows", 24), columns=_size(args, "columns", 80),
        env={str(key): str(value) for key, value in env.items()})


def _size(args: Mapping[str, Any], key: str, default: int) -> int:
    value = args.get(key)
    return value if isinstance(value, int) and 0 < value < 65536 else default


async def carry(channel: ByteChannel, reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until the command or the client has gone; then end the command."""
    stdin = _Stdin(channel, writer)
    feeding = asyncio.ensure_future(stdin.run())
    incoming = asyncio.ensure_future(_take(channel, reader, stdin))
    outgoing = asyncio.ensure_future(_give(channel, writer))
    try:
        await asyncio.wait((incoming, outgoing), return_when=asyncio.FIRST_COMPLETED)
        # The client's end alone (it closed or broke the protocol) ends the command, too.
    finally:
        for task in (feeding, incoming, outgoing):
            task.cancel()
        await asyncio.gather(feeding, incoming, outgoing, return_exceptions=True)
        await channel.close()


class _Stdin:
    """Standard input on its way to a command that need not read it: at most a window of it waits,
    and nothing waits behind it."""

    def __init__(self, channel: ByteChannel, writer: asyncio.StreamWriter) -> None:
        self._channel = channel
        self._writer = writer
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._held = 0

    def put(self, piece: bytes) -> None:
        """Some of it; empty: its end. Raises VerbError when the client sends more than it may."""
        self._held += len(piece)
        if self._held > STDIN_WINDOW:
            raise VerbError("more of standard input than may be sent at once")
        self._pieces.put_nowait(piece)

    async def run(self) -> None:
        """Hand it on, piece by piece, and tell the client what was taken."""
        while True:
            piece = await self._pieces.get()
            await self._channel.write(piece)
            self._held -= len(piece)
            self._writer.write(frame(FrameKind.TAKEN, json.dumps({"bytes": len(piece)}).encode()))


async def _take(channel: ByteChannel, reader: asyncio.StreamReader, stdin: _Stdin) -> None:
    while True:
        kind, length = parse_frame_head(await reader.readexactly(FRAME_HEAD))
        payload = await reader.readexactly(length)
        if kind is FrameKind.STDIN:
            stdin.put(payload)
        elif kind is FrameKind.SIZE:
            size = json.loads(payload)
            await channel.resize(_size(size, "rows", 24), _size(size, "columns", 80))
        elif kind is FrameKind.SIGNAL:
            await channel.signal(int(json.loads(payload)["number"]))


async def _give(channel: ByteChannel, writer: asyncio.StreamWriter) -> None:
    try:
        while (piece := await channel.read()) is not None:
            stream, data = piece
            for at in range(0, len(data), MAX_FRAME):
                writer.write(frame(_OUTPUT[stream], data[at:at + MAX_FRAME]))
            await writer.drain()
        last = frame(FrameKind.EXIT, json.dumps({"status": await channel.status()}).encode())
    except ConnectionError:
        return
    except Exception as error:  # noqa: BLE001 -- crosses the socket: the client raises it
        last = frame(FrameKind.ERROR, json.dumps(error_json(error)).encode())
    writer.write(last)
    await writer.drain()
