"""The socket on which a program's shim reports: JSON objects, one a line, from a program that may
send anything. One socket for each instance, so it is plain who is speaking."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

REPORT_LIMIT = 1 << 20
"""Bytes of one report: some thousand module names."""
_CONNECTIONS = 64

OnReport = Callable[[Mapping[str, Any]], None]


def _nobody(report: Mapping[str, Any]) -> None:
    """Who will hear it is not there yet."""


class Control:
    """Listens at ``path`` until ``close``. What is not a report is counted and dropped."""

    def __init__(self, path: str, on_report: OnReport = _nobody) -> None:
        """``path``: at most 107 bytes, in a folder of the owner's alone. ``on_report`` may be set
        later: nothing is read before the loop gets its turn."""
        self.path = path
        self.dropped = 0
        self.on_report = on_report
        self._loop = asyncio.get_running_loop()
        self._peers: set[_Peer] = set()
        self._socket = _listen(path)
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Hang up on everybody and remove the socket. Safe to call twice."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for peer in list(self._peers):
            peer.abort()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass

    def received(self, line: bytes) -> None:
        """One line from a peer."""
        try:
            report = json.loads(line)
        except (ValueError, RecursionError):
            self.dropped += 1
            return
        if isinstance(report, dict) and isinstance(report.get("event"), str):
            self.on_report(report)
        else:
            self.dropped += 1

    def joined(self, peer: _Peer) -> None:
        """A peer is there."""
        self._peers.add(peer)

    def left(self, peer: _Peer) -> None:
        """A peer is gone."""
        self._peers.discard(peer)

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        if len(self._peers) >= _CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        _Peer(self, connection, self._loop)


def _listen(path: str) -> socket.socket:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        server.bind(path)
        os.chmod(path, 0o600)
        server.listen(16)
    except OSError:
        server.close()
        raise
    return server


class _Peer:
    """One connection: bytes in, lines out, by a plain reader callback.

    asyncio's transports cost two turns of the loop before the first byte is read; the report that
    the program listens is on the path of every reload.
    """

    def __init__(self, owner: Control, connection: socket.socket,
                 loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._socket = connection
        self._loop = loop
        self._rest = bytearray()
        self._skipping = False
        owner.joined(self)
        loop.add_reader(connection.fileno(), self._readable)
        self._readable()

    def abort(self) -> None:
        """Hang up."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._owner.left(self)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.abort()
            return
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._rest += part
            self._line()
        self._rest += rest
        if len(self._rest) > REPORT_LIMIT:
            self._skipping = True
            self._rest.clear()

    def _line(self) -> None:
        line, self._rest = bytes(self._rest), bytearray()
        if self._skipping:
            self._skipping = False
            self._owner.dropped += 1
        elif line:
            self._owner.received(line)
