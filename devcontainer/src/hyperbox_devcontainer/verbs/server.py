"""The session's end of the verb socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

from hyperbox_devcontainer.errors import SessionBusyError, VerbError, WorkstationError
from hyperbox_devcontainer.paths import private_dir
from hyperbox_devcontainer.verbs import execution, protocol
from hyperbox_devcontainer.verbs.calls import CALLS, Starting, args_of, words_of
from hyperbox_devcontainer.verbs.errors import error_json
from hyperbox_devcontainer.verbs.ring import EventRing
from hyperbox_devcontainer.verbs.session import SessionLike

HELLO_SECONDS = 5.0
CLOSE_SECONDS = 1.0
_PEER = struct.Struct("3i")


class VerbServer:
    """Serves one project's verbs to its owner, from before the session is open until it ended.

    Verbs that need the session wait for it; ``status``, ``events`` and ``stop`` do not.
    """

    def __init__(self, path: str, starting: Mapping[str, Any], *,
                 ring: EventRing | None = None) -> None:
        """``starting``: the project object that ``status`` gives until the session is open."""
        self.path = path
        self.ring = ring or EventRing()
        self.stop_asked = asyncio.Event()
        """Set when a client asked for the end; ``ended`` answers it."""
        self.fast = False
        self._starting = Starting(starting)
        self.project: str | None = starting.get("path")
        """The root of the project that requests may be about."""
        self._session: asyncio.Future[SessionLike] = asyncio.Future()
        self._ended = asyncio.Event()
        self._epoch = os.urandom(8).hex()
        self._clients: set[asyncio.Task[None]] = set()
        self._lock = -1
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. Raises SessionBusyError where the project's session is up already."""
        private_dir(os.path.dirname(self.path))
        self._lock = _take_lock(self.path)
        listener = _listen(self.path)
        self._server = await asyncio.start_unix_server(
            self._accept, sock=listener, limit=protocol.MAX_LINE)

    def attach(self, session: SessionLike) -> None:
        """The session is open: verbs that waited for it go on."""
        self._session.set_result(session)

    def publish(self, event: Mapping[str, Any]) -> None:
        """Give an event to every client that follows."""
        self.ring.append(event)

    def ended(self) -> None:
        """Everything is down: who asked for it is answered."""
        self._ended.set()

    async def close(self) -> None:
        """Stop listening and let go of the socket. Clients have a second to read their answer."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._session.cancel()
        if self._clients and self._ended.is_set():
            await asyncio.wait(self._clients, timeout=CLOSE_SECONDS)
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        _let_lock_go(self.path, self._lock)

    async def session(self) -> SessionLike:
        """The session, as soon as it is open. Raises VerbError where it never opened."""
        try:
            return await asyncio.shield(self._session)
        except asyncio.CancelledError:
            if self._session.cancelled():
                raise VerbError("the session ended before it was open") from None
            raise

    def status(self) -> dict[str, Any]:
        """What ``status`` says now, never waiting."""
        if self._session.done() and not self._session.cancelled():
            return self._session.result().status()
        return self._starting.status()

    async def stop(self, fast: bool) -> dict[str, Any]:
        """Ask for the end and wait for it."""
        self.fast = self.fast or fast
        self.stop_asked.set()
        await self._ended.wait()
        return {}

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await _Connection(self, reader, writer).serve()
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError is one of them
            pass  # the client left or says nothing; there is nobody to tell
        except asyncio.CancelledError:
            pass  # close() ends us; asyncio would report a cancelled client as a fault
        finally:
            self._clients.discard(task)
            writer.close()

    @property
    def greeting(self) -> dict[str, Any]:
        """Our hello."""
        return protocol.hello(pid=os.getpid(), epoch=self._epoch)


class _Connection:
    """One client: any number of requests at the same time, answers under one lock."""

    def __init__(self, server: VerbServer, reader: asyncio.StreamReader,
                 writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._sending = asyncio.Lock()
        self._requests: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until the client leaves."""
        try:
            if not await self._greet():
                return
            while line := await self._line():
                message = protocol.decode(line)
                if message.get("verb") == "exec":
                    await self._exec(message)
                    return
                task = asyncio.ensure_future(self._answer(message))
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)
        except VerbError as error:
            await self._send({"ok": False, "error": error_json(error)})
        finally:
            for task in self._requests:
                task.cancel()
            await asyncio.gather(*self._requests, return_exceptions=True)

    async def _greet(self) -> bool:
        if _peer_uid(self._writer) != os.getuid():
            await self._send({"ok": False, "error": {
                "kind": "VerbError", "message": "this session belongs to another user"}})
            return False
        await self._send(self._server.greeting)
        async with asyncio.timeout(HELLO_SECONDS):
            line = await self._line()
        if line:
            protocol.check_hello(protocol.decode(line))
        return bool(line)

    async def _line(self) -> bytes:
        try:
            return await self._reader.readline()
        except ValueError as error:  # asyncio's word for "longer than the limit"
            raise VerbError(f"a line is longer than {protocol.MAX_LINE} bytes") from error

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._send_bytes(protocol.encode(message))

    async def _send_bytes(self, data: bytes) -> None:
        async with self._sending:
            self._writer.write(data)
            await self._writer.drain()

    async def _answer(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        try:
            protocol.check_project(message, self._server.project)
            args = args_of(message)
            if message.get("verb") == "events":
                await self._follow(number, args)
                return
            result = await _call(self._server, message.get("verb"), args)
            answer = {"id": number, "ok": True, "result": result}
        except ConnectionError:
            return
        except Exception as error:  # noqa: BLE001 -- crosses the socket: the client raises it
            answer = {"id": number, "ok": False, "error": error_json(error)}
        with contextlib.suppress(ConnectionError):
            await self._send(answer)

    async def _follow(self, number: Any, args: Mapping[str, Any]) -> None:
        """``events``: those of ``words``, from ``since`` or the last ``tail``; ``follow`` goes on.

        ``of``: the words that ``tail`` counts, where they are not all of ``words``.
        """
        ring = self._server.ring
        words = words_of(args, "words")
        position = self._position(args, words_of(args, "of") or words)
        await self._send({"id": number, "ok": True, "result": {"seq": position}})
        while True:
            read = ring.read(position)
            await self._send_events(number, read.events, read.lost, words)
            position = read.position
            if position < ring.last:
                continue
            if not args.get("follow"):
                await self._send({"id": number, "done": True, "seq": position})
                return
            await ring.wait(position)

    def _position(self, args: Mapping[str, Any], counted: frozenset[str]) -> int:
        since = args.get("since")
        if isinstance(since, dict) and isinstance(since.get("seq"), int):
            # A position of an earlier session means nothing here: all that is kept is new.
            return min(since["seq"], self._server.ring.last) \
                if since.get("epoch") == self._server.greeting["epoch"] else 0
        tail = args.get("tail")
        return self._server.ring.tail(tail, counted) if isinstance(tail, int) \
            else self._server.ring.last

    async def _send_events(self, number: Any, events: list[Any], lost: int,
                           words: frozenset[str]) -> None:
        name = json.dumps(number)  # the client's choice: any JSON
        lines = [f'{{"id":{name},"lost":{lost},"seq":{events[0].seq - 1 if events else 0}}}\n'] \
            if lost else []
        lines += [f'{{"id":{name},"seq":{kept.seq},"event":{kept.tail}}}\n'
                  for kept in events if not words or kept.word in words]
        if lines:
            await self._send_bytes("".join(lines).encode("ascii"))

    async def _exec(self, message: Mapping[str, Any]) -> None:
        number = message.get("id")
        try:
            protocol.check_project(message, self._server.project)
            session = await self._server.session()
            channel = await execution.start(session, args_of(message))
        except Exception as error:  # noqa: BLE001 -- crosses the socket: the client raises it
            await self._send({"id": number, "ok": False, "error": error_json(error)})
            return
        await self._send({"id": number, "ok": True, "result": {}})
        await execution.carry(channel, self._reader, self._writer)


async def _call(server: VerbServer, verb: Any, args: Mapping[str, Any]) -> Any:
    call = CALLS.get(verb) if isinstance(verb, str) else None
    if call is None:
        raise VerbError(f"the session does not know the verb {str(verb)[:40]!r}",
                        hint="it was started by another version of hyperbox")
    return await call(server, args)


def _take_lock(path: str) -> int:
    """The right to listen at ``path``; held until the descriptor is closed, by death too."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        pid = int(owner) if owner.isdigit() else None
        raise SessionBusyError(
            "this project is up already" + (f" (process {pid})" if pid else ""), pid=pid,
            hint="`hyperbox logs -f` follows it, `hyperbox down` ends it") from None
    if not _is_still_there(f"{path}.lock", lock):
        # Its last owner removed it between our open and our lock: another may hold a new one.
        os.close(lock)
        return _take_lock(path)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def forget_socket(path: str) -> None:
    """Remove the socket that a killed session left; one that a session listens at stays."""
    if not os.path.lexists(path):
        return
    try:
        lock = _take_lock(path)
    except SessionBusyError:
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    _let_lock_go(path, lock)


def _let_lock_go(path: str, lock: int) -> None:
    """Remove the lock's file while it is ours: whoever opened it before finds that it is gone."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.lock")
    os.close(lock)


def _is_still_there(path: str, lock: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(lock))
    except FileNotFoundError:
        return False


def _listen(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # we hold the lock: what stands here is what a killed session left
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise WorkstationError(f"can't listen at {path}: {error.strerror}", file=path) from error
    return listener


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    connection = writer.get_extra_info("socket")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(raw)[1])
