"""The command's end of the verb socket: blocking, without asyncio (its import alone is 54 ms).

Every wait has a limit, except where a person follows a stream.
"""

from __future__ import annotations

import socket
import struct
import time

from hyperbox_devcontainer.errors import NoSessionError, SilentSessionError, VerbError
from hyperbox_devcontainer.verbs import protocol
from hyperbox_devcontainer.verbs.errors import error_from_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

CONNECT_SECONDS = 2.0
_PEER = struct.Struct("3i")


class Client:
    """A connection to a project's session. Use ``connect``; close it when done."""

    def __init__(self, connection: socket.socket, project: str | None = None) -> None:
        self._socket = connection
        self._project = project
        self._buffer = bytearray()
        self._last_id = 0
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        self.pid, self.uid, _ = _PEER.unpack(raw)
        """The process that listens and its user, as the kernel knows them."""
        self.epoch = ""

    @classmethod
    def connect(cls, path: str, *, project: str | None = None,
                timeout: float = CONNECT_SECONDS) -> Client:
        """Reach the session at ``path`` within ``timeout`` seconds, to ask it about ``project``
        (its root); None: about whichever it has.

        Raises NoSessionError where nobody listens, SilentSessionError where somebody does but is
        silent, VerbError where the listener is not ours.
        """
        client = cls(_connected(path, timeout), project)
        try:
            client._greet(timeout)
        except BaseException:
            client.close()
            raise
        return client

    def _greet(self, timeout: float) -> None:
        import os
        if self.uid != os.getuid():
            raise VerbError(f"the session's socket belongs to user {self.uid}, not to you")
        answer = self._receive(time.monotonic() + timeout)
        if answer.get("ok") is False:
            raise error_from_json(answer.get("error") or {})
        protocol.check_hello(answer)
        self.epoch = str(answer.get("epoch", ""))
        self._send(protocol.hello(pid=os.getpid()))

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def call(self, verb: str, args: Mapping[str, Any] | None = None, *,
             timeout: float | None) -> Any:
        """One question, one answer. Raises VerbError as the session did, SilentSessionError."""
        number = self._ask(verb, args)
        return self._answer(number, timeout)

    def stream(self, verb: str, args: Mapping[str, Any] | None = None, *,
               timeout: float) -> Iterator[dict[str, Any]]:
        """Messages (``event`` or ``lost``) until ``done``; ``timeout`` is for the first."""
        number = self._ask(verb, args)
        self._answer(number, timeout)
        while True:
            message = self._receive(None)
            if message.get("id") != number:
                continue
            if message.get("done"):
                return
            if message.get("ok") is False:
                raise error_from_json(message.get("error") or {})
            yield message

    def upgrade(self, verb: str, args: Mapping[str, Any], *,
                timeout: float) -> tuple[socket.socket, bytes]:
        """Turn the connection into frames: its socket, and bytes of frames read already."""
        self._answer(self._ask(verb, args), timeout)
        self._socket.settimeout(None)
        return self._socket, bytes(self._buffer)

    def _ask(self, verb: str, args: Mapping[str, Any] | None) -> int:
        self._last_id += 1
        self._send({"id": self._last_id, "verb": verb, "project": self._project,
                    "args": dict(args or {})})
        return self._last_id

    def _answer(self, number: int, timeout: float | None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            message = self._receive(deadline)
            if message.get("id", number) != number:
                continue
            if message.get("ok") is True:
                return message.get("result")
            raise error_from_json(message.get("error") or {})

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._socket.sendall(protocol.encode(message))
        except OSError as error:
            raise self._silent_or_gone(error) from error

    def _receive(self, deadline: float | None) -> dict[str, Any]:
        while (end := self._buffer.find(b"\n")) < 0:
            data = self._read(deadline)
            if not data:
                raise NoSessionError("the session ended while it was asked")
            self._buffer += data
            if len(self._buffer) > protocol.MAX_LINE:
                raise VerbError("the session sent a line over the limit")
        line = bytes(self._buffer[:end])
        del self._buffer[:end + 1]
        return protocol.decode(line)

    def _read(self, deadline: float | None) -> bytes:
        try:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
            else:
                self._socket.settimeout(None)
            return self._socket.recv(65536)
        except OSError as error:
            raise self._silent_or_gone(error) from error

    def _silent_or_gone(self, error: OSError) -> Exception:
        if isinstance(error, TimeoutError):
            return SilentSessionError(
                f"the session (process {self.pid}) does not answer", pid=self.pid,
                hint="`hyperbox down` ends it; the program's own state is kept")
        return NoSessionError("the session ended while it was asked")


def _connected(path: str, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise NoSessionError("nothing is up here", hint="`hyperbox up` brings it up") from None
    except (TimeoutError, BlockingIOError):
        connection.close()
        raise SilentSessionError("the session does not take connections",
                                 hint="`hyperbox down` ends it") from None
    except OSError as error:
        connection.close()
        raise VerbError(f"the session's socket can't be reached: {error.strerror}",
                        file=path) from error
    return connection
