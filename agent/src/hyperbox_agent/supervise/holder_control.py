"""How an agent commands the holder: JSON lines over a unix socket, descriptors beside them.

A request is ``{"id", "op", …}``, with ``"fds": n`` where n descriptors come with its first byte
(SCM_RIGHTS). The answer is ``{"id", "ok": true, …}`` or ``{"id", "error": "…"}``. One agent at a
time: the one that started the holder has a socket pair; after its death another may connect to
``port.sock`` in the run folder, which only this user can reach and whose peer is checked.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hyperbox_agent.supervise.holder_escrow import ORPHAN_LOG, Kept
from hyperbox_agent.supervise.holder_loop import IN, OUT, Loop, Timer
from hyperbox_agent.supervise.holder_mend import start_mending
from hyperbox_agent.supervise.holder_relay import Relay

if TYPE_CHECKING:
    import subprocess

VERSION = 2
SOCKET_NAME = "port.sock"
BUSY = "another agent holds this port"
FDS_LIMIT = 250
"""The kernel passes 253 descriptors in one message."""
_MESSAGE_LIMIT = 1024 * 1024
_LONELY = 60.0
"""With no agent, and nothing alive to serve, the holder ends after this long (s)."""
_GRACE = 3.0
_LOOK = 5.0
_MENDED = 10.0
"""How long (s) requests wait at most for a batch to be finished after its agent's death."""


class Channel:
    """One agent's connection."""

    def __init__(self, loop: Loop, sock: socket.socket, on_message: Callable[..., None],
                 on_end: Callable[[], None]) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_message = on_message
        self._on_end = on_end
        self._inbox = b""
        self._fds: list[int] = []
        self._outbox: list[tuple[bytes, list[int]]] = []
        loop.watch(sock.fileno(), IN, self._ready)

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Queue a message; descriptors are passed with its first byte and stay open here."""
        self._outbox.append((json.dumps(message).encode() + b"\n", fds or []))
        self._flush()

    def _flush(self) -> None:
        while self._outbox:
            data, fds = self._outbox[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._sock.sendmsg([data], rights)
            except BlockingIOError:
                self._loop.change(self._sock.fileno(), IN | OUT)
                return
            except OSError:
                self._outbox.clear()
                return
            if sent == len(data):
                del self._outbox[0]
            else:
                self._outbox[0] = (data[sent:], [])
        self._loop.change(self._sock.fileno(), IN)

    def _ready(self, bits: int) -> None:
        if bits & OUT:
            self._flush()
        if not bits & ~OUT:
            return
        try:
            data = self._receive()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._inbox) > _MESSAGE_LIMIT:
            self._on_end()
            return
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            self._hand_over(line)

    def _receive(self) -> bytes:
        data, fds, _flags, _peer = socket.recv_fds(self._sock, 65536, FDS_LIMIT)
        self._fds += fds
        return data

    def _hand_over(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            count = int(message.get("fds", 0))
        except (ValueError, AttributeError, TypeError):
            self.send({"error": "not a message"})
            return
        fds, self._fds = self._fds[:count], self._fds[count:]
        self._on_message(message, fds)

    def close(self) -> None:
        """Close it, with the descriptors that nobody asked for."""
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        for fd in self._fds:
            os.close(fd)


class Control:
    """Carries out what the agent asks, and stands in for it after its death."""

    def __init__(self, loop: Loop, relay: Relay, run_dir: str, first: socket.socket) -> None:
        self._loop = loop
        self._relay = relay
        self._run_dir = run_dir
        self._kept: dict[int, Kept] = {}
        self._keep_for = 86400.0
        self._home: str | None = None
        self._mending: subprocess.Popen[bytes] | None = None
        self._timers: list[Timer] = []
        self._orphaned_at: float | None = None
        self._alive_at = 0.0
        self._door = self._open_door()
        self._channel: Channel | None = Channel(loop, first, self._asked, self._agent_lost)

    # -- the door -----------------------------------------------------------------------------

    def _open_door(self) -> socket.socket:
        path = os.path.join(self._run_dir, SOCKET_NAME)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            door.bind(path)
        finally:
            os.umask(mask)
        door.listen(8)
        door.setblocking(False)
        self._loop.watch(door.fileno(), IN, self._knock)
        return door

    def _knock(self, _bits: int) -> None:
        try:
            sock, _ = self._door.accept()
        except OSError:
            return
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, _gid = struct.unpack("3i", credentials)
        if uid not in (0, os.getuid()):
            sock.close()
        elif self._channel is None:
            self._channel = Channel(self._loop, sock, self._asked, self._agent_lost)
        else:
            self._turn_away(sock)

    def _turn_away(self, sock: socket.socket) -> None:
        """Answer one question with a refusal: closing at once would look like a dead holder."""
        visitor: Channel

        def refuse(message: dict[str, Any], _fds: list[int]) -> None:
            visitor.send({"id": message.get("id"), "error": BUSY})

        def leave() -> None:
            visitor.close()

        visitor = Channel(self._loop, sock, refuse, leave)

    # -- an agent's life ----------------------------------------------------------------------

    def _agent_lost(self) -> None:
        """Go on alone: relay to the same instance, drain what nobody reads any more."""
        assert self._channel is not None
        self._channel.close()
        self._channel = None
        if self._relay.holding is None or not self._mend():
            self._relay.release()
        for kept in self._kept.values():
            kept.drain(self._loop, os.path.join(self._run_dir, f"{ORPHAN_LOG}{kept.number}.log"))
        self._orphaned_at = self._alive_at = self._loop.now
        self._timers = [self._loop.later(self._keep_for, self._end_all)]
        self._look_after()

    def _mend(self) -> bool:
        """The agent died while the program was frozen, perhaps inside a batch: have both mended
        before anything is asked of the program. Whether that could be begun."""
        try:
            self._mending = start_mending(self._home)
        except OSError:
            return False
        self._await_mended(self._loop.now + _MENDED)
        return True

    def _await_mended(self, deadline: float) -> None:
        mending = self._mending
        if mending is None:
            return
        if mending.poll() is None and self._loop.now < deadline:
            self._loop.later(0.005, lambda: self._await_mended(deadline))
            return
        self._mending = None
        self._relay.release()

    def _look_after(self) -> None:
        """A port with nothing behind it is not worth a day."""
        if any(kept.alive() for kept in self._kept.values()):
            self._alive_at = self._loop.now
        if self._loop.now - self._alive_at >= min(_LONELY, self._keep_for):
            self._end_all()
            return
        self._timers.append(self._loop.later(min(_LOOK, self._keep_for), self._look_after))
        self._timers = self._timers[:1] + self._timers[-1:]

    def _adopted(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = []
        self._orphaned_at = None
        for kept in self._kept.values():
            kept.stop_draining(self._loop)

    def _end_all(self) -> None:
        """Nobody came: end the instances, then this process."""
        for timer in self._timers:
            timer.cancel()
        self._relay.unlisten()
        for kept in self._kept.values():
            kept.end(signal.SIGTERM)
        self._await_end(self._loop.now + _GRACE)

    def _await_end(self, deadline: float) -> None:
        left = [kept for kept in self._kept.values() if kept.alive()]
        if left and self._loop.now < deadline:
            self._timers = [self._loop.later(0.05, lambda: self._await_end(deadline))]
            return
        for kept in left:
            kept.end(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Leave nothing: connections, descriptors, the socket file; then stop the loop."""
        self._relay.close()
        for kept in self._kept.values():
            kept.close(self._loop)
        self._kept = {}
        self._loop.unwatch(self._door.fileno())
        self._door.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._run_dir, SOCKET_NAME))
        self._loop.stop()

    # -- what is asked --------------------------------------------------------------------------

    def _asked(self, message: dict[str, Any], fds: list[int]) -> None:
        channel = self._channel
        if channel is None:
            return
        number = message.get("id")

        def answer(body: dict[str, Any] | None = None, passed: list[int] | None = None) -> None:
            if self._channel is channel:
                more = {"fds": len(passed)} if passed else {}
                channel.send({"id": number, "ok": True, **(body or {}), **more}, passed)

        operation = getattr(self, f"_op_{message.get('op')}", None)
        if operation is None:
            channel.send({"id": number, "error": f"unknown operation {message.get('op')!r}"})
            return
        try:
            operation(message, fds, answer)
        except (KeyError, TypeError, ValueError, OSError) as error:
            channel.send({"id": number, "error": f"{type(error).__name__}: {error}"})

    def _op_hello(self, message: dict[str, Any], _fds: list[int], answer: Any) -> None:
        """The first thing an agent says: settings; the answer says what is there."""
        self._keep_for = float(message["keep_for"])
        self._home = message.get("home")
        self._relay.max_wait = message["max_wait"]
        orphaned = None
        if self._orphaned_at is not None:
            orphaned = self._loop.now - self._orphaned_at
            self._adopted()
        live = self._relay.live
        answer({
            "version": VERSION,
            "pid": os.getpid(),
            "number": self._relay.live_number,
            "backend": list(live.address) if live is not None else None,
            "orphaned_s": orphaned,
            "kept": sorted(self._kept),
        }, [sock.fileno() for sock in self._relay.listeners])

    def _op_listen(self, _message: dict[str, Any], fds: list[int], answer: Any) -> None:
        self._relay.listen([socket.socket(fileno=fd) for fd in fds])
        answer()

    def _op_switch(self, message: dict[str, Any], _fds: list[int], answer: Any) -> None:
        backend = message["backend"]
        address = None if backend is None else (str(backend[0]), int(backend[1]))
        self._relay.switch(int(message["number"]), address)
        answer()

    def _op_drain(self, message: dict[str, Any], _fds: list[int], answer: Any) -> None:
        self._relay.drain(int(message["number"]), float(message["seconds"]),
                          lambda cut, ms: answer({"cut": cut, "ms": ms}))

    def _op_hold(self, message: dict[str, Any], _fds: list[int], answer: Any) -> None:
        self._relay.hold(float(message["seconds"]),
                         lambda busy, ms: answer({"busy": busy, "waited_ms": ms}))

    def _op_release(self, _message: dict[str, Any], _fds: list[int], answer: Any) -> None:
        self._relay.release()
        answer()

    def _op_keep(self, message: dict[str, Any], fds: list[int], answer: Any) -> None:
        number = int(message["number"])
        old = self._kept.pop(number, None)
        if old is not None:
            old.close(self._loop)
        self._kept[number] = Kept(number, int(message["pid"]), fds, message["info"])
        answer()

    def _op_forget(self, message: dict[str, Any], _fds: list[int], answer: Any) -> None:
        kept = self._kept.pop(int(message["number"]), None)
        if kept is not None:
            kept.close(self._loop)
        answer()

    def _op_fetch(self, message: dict[str, Any], _fds: list[int], answer: Any) -> None:
        """Hand copies of one instance's descriptors to the agent that adopts it."""
        kept = self._kept[int(message["number"])]
        answer({
            "number": kept.number, "pid": kept.pid, "alive": kept.alive(), "start": kept.start,
            "info": kept.info, "log": kept.log,
        }, kept.fds)

    def _op_stats(self, _message: dict[str, Any], _fds: list[int], answer: Any) -> None:
        answer({"stats": self._relay.stats()})

    def _op_close(self, _message: dict[str, Any], _fds: list[int], answer: Any) -> None:
        answer()
        self.close()
