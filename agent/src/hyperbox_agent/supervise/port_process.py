"""Start a port holder, and talk to one from asyncio."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hyperbox_agent
from hyperbox_agent.errors import PortError
from hyperbox_agent.supervise.holder_control import FDS_LIMIT, SOCKET_NAME
from hyperbox_agent.supervise.holder_escrow import ORPHAN_LOG, start_time
from hyperbox_agent.supervise.peers import PEERS_NAME

_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from hyperbox_agent.supervise.holder import run_from_arguments; run_from_arguments()"
)
LOG_NAME = "holder.log"
_LOG_LIMIT = 256 * 1024
_SOCKET_PATH_LIMIT = 107


class HolderLostError(Exception):
    """The holder went away with a question open."""


@dataclass(frozen=True, slots=True)
class HolderProcess:
    """A holder by pid and start time, and the child handle where it is a child of this agent."""

    pid: int
    start: int | None
    child: subprocess.Popen[bytes] | None

    def gone(self) -> bool:
        """Whether it has ended; reaps it where it is our child."""
        if self.child is not None:
            return self.child.poll() is not None
        return self.start is None or start_time(self.pid) != self.start


def code_path() -> str:
    """The folder or archive on ``sys.path`` that holds this package."""
    return os.path.dirname(os.path.dirname(os.path.abspath(hyperbox_agent.__file__)))


def start_holder(run_dir: str) -> tuple[HolderProcess, socket.socket]:
    """Start a holder in a session of its own; the socket is its control channel.

    ``-I -S``: no site, nothing of the user's environment, 8 ms to start. Raises PortError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        argv = [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, code_path(), run_dir,
                str(theirs.fileno())]
        try:
            # What it has to say at its death would disturb the link if it had our own streams.
            path = os.path.join(run_dir, LOG_NAME)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(path, flags, 0o600), "ab") as log:
                if log.tell() > _LOG_LIMIT:
                    log.truncate(0)
                child = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                    pass_fds=[theirs.fileno()], start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise PortError(f"the port holder can't be started: {error}", file=run_dir) from error
    return HolderProcess(child.pid, start_time(child.pid), child), ours


def reach_holder(run_dir: str) -> socket.socket | None:
    """Connect to the holder that another agent left in ``run_dir``; None where there is none."""
    path = os.path.join(run_dir, SOCKET_NAME)
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
        raise PortError("the path of the run folder is too long for a socket", file=run_dir)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        return None
    return sock


def sweep(run_dir: str) -> None:
    """Remove what holders that were killed have left, and a log that says nothing."""
    for name in os.listdir(run_dir):
        path = os.path.join(run_dir, name)
        if name in (SOCKET_NAME, PEERS_NAME) or name.startswith(ORPHAN_LOG) or (
                name == LOG_NAME and os.path.getsize(path) == 0):
            os.unlink(path)


class HolderChannel:
    """Questions and answers over a holder's control socket, on the running event loop."""

    def __init__(self, sock: socket.socket, on_lost: Callable[[], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._next_id = 0
        self._open: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._inbox = b""
        self._fds: list[int] = []
        self._lost = False
        self._sending = asyncio.Lock()
        self._loop.add_reader(sock.fileno(), self._readable)

    async def ask(self, op: str, body: dict[str, Any], fds: Sequence[int] = (),
                  ) -> tuple[dict[str, Any], list[int]]:
        """The answer to ``op`` and the descriptors that came with it.

        Raises HolderLostError when the holder ends first, PortError when it refuses.
        """
        self._next_id += 1
        number = self._next_id
        answer = self._loop.create_future()
        self._open[number] = answer
        message = {"id": number, "op": op, **body}
        if fds:
            message["fds"] = len(fds)
        try:
            await self._send(json.dumps(message).encode() + b"\n", fds)
            reply, passed = await answer
        finally:
            self._open.pop(number, None)
        if "error" in reply:
            raise PortError(f"the port holder refused {op}: {reply['error']}")
        return reply, passed

    async def _send(self, data: bytes, fds: Sequence[int]) -> None:
        async with self._sending:
            if self._lost:
                raise HolderLostError("closed")
            try:
                sent = await self._send_rights(data, fds) if fds else 0
                await self._loop.sock_sendall(self._sock, data[sent:])
            except OSError as error:
                raise HolderLostError(str(error)) from error

    async def _send_rights(self, data: bytes, fds: Sequence[int]) -> int:
        """Send descriptors beside the first bytes of ``data``; how many bytes went."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        while True:
            try:
                return self._sock.sendmsg([data], ancillary)
            except BlockingIOError:
                room = self._loop.create_future()
                self._loop.add_writer(self._sock.fileno(), room.set_result, None)
                await room
                self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            data, fds, _flags, _peer = socket.recv_fds(self._sock, 65536, FDS_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._fds += fds
        if not data:
            self._lose()
            return
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            self._hand_over(json.loads(line))

    def _hand_over(self, reply: dict[str, Any]) -> None:
        count = int(reply.get("fds", 0))
        passed, self._fds = self._fds[:count], self._fds[count:]
        answer = self._open.get(reply.get("id", 0))
        if answer is not None and not answer.done():
            answer.set_result((reply, passed))
            return
        for fd in passed:  # the question was given up
            os.close(fd)

    def _lose(self) -> None:
        self.close()
        self._on_lost()

    def close(self) -> None:
        """Close the socket; open questions fail with HolderLostError. Harmless twice."""
        if self._lost:
            return
        self._lost = True
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for fd in self._fds:
            os.close(fd)
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(HolderLostError("the holder ended"))
