"""One end of a relayed connection: a non-blocking socket and the bytes that wait for it."""

from __future__ import annotations

import socket
from collections.abc import Callable

from hyperbox_agent.supervise.holder_limits import PART, READ
from hyperbox_agent.supervise.holder_loop import IN, OUT, Loop, Timer

_QUICK_ACK = getattr(socket, "TCP_QUICKACK", 12)


def _deaf(_bits: int) -> None:
    """The handler of a closed end."""


class End:
    """A socket on the loop. Sends at once what the kernel takes, keeps and sends the rest later.

    Methods that send return False once the connection takes no more bytes.
    """

    __slots__ = ("_bits", "_fd", "_handler", "_loop", "_timer", "eof", "pending", "reading", "shut",
                 "sock")

    def __init__(self, loop: Loop, sock: socket.socket, handler: Callable[[int], None]) -> None:
        self.sock = sock
        self.pending = b""
        self.reading = 0
        """IN while it is watched for bytes."""
        self.eof = False
        """Its peer sends no more."""
        self.shut = False
        """We told its peer that we send no more."""
        self._loop = loop
        self._fd = sock.fileno()
        self._handler = handler
        self._bits = 0
        self._timer: Timer | None = None

    def send(self, data: bytes) -> bool:
        """Send ``data`` behind what is pending."""
        if self.pending:
            self.pending += data
            return True
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        if sent != len(data):
            self.pending = data[sent:]
            self.watch(self.reading)
        return True

    def acknowledge(self) -> None:
        """Tell the peer now that its bytes have come, while more are awaited.

        A server that writes head and body apart (``http.server`` does) waits with the body until
        the head is acknowledged, and the kernel would take its 40 ms for that (Nagle against
        delayed acknowledgement, tcp(7) TCP_QUICKACK).
        """
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        except OSError:
            return  # it is gone; the next read says so

    def flush(self) -> bool:
        """Send what is pending, as far as it goes."""
        try:
            self.pending = self.pending[self.sock.send(self.pending):]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def watch(self, want: int) -> None:
        """Wait for bytes (IN), for the peer's end (GONE) or neither (0); for room while needed.

        Not watched at all rather than watched for nothing: a hang-up is reported unasked, on
        every turn.
        """
        bits = want | OUT if self.pending else want
        self.reading = want & IN
        if bits == self._bits:
            return
        if not bits:
            self._loop.unwatch(self._fd)
        elif not self._bits:
            self._loop.watch(self._fd, bits, self._handler)
        else:
            self._loop.change(self._fd, bits)
        self._bits = bits

    def await_room(self) -> None:
        """Wait until its handshake is over."""
        if self._bits != OUT:
            self._loop.watch(self._fd, OUT, self._handler)
            self._bits = OUT

    def shut_down(self) -> bool:
        """Send the end of the stream."""
        self.shut = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    def reset_seen(self) -> bool:
        """Whether a reset came, perhaps behind the end of the stream: our bytes went unread."""
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def part(self, late: Callable[[], None]) -> None:
        """Close it once its peer has, which is about to. ``late``: it did not, within ``PART``.

        Who closes first keeps its port for a minute (TIME_WAIT). The peer is a server and has one
        port for all; of ours, one for each connection, 300 requests a second use up all in a
        minute and a half, and long before that a free one is hard to find.
        """
        if self._bits:
            self._loop.unwatch(self._fd)
        self.pending, self._bits, self._handler = b"", 0, self._parting
        self._timer = self._loop.later(PART, lambda: self._too_late(late))
        self.watch(IN)

    def _too_late(self, late: Callable[[], None]) -> None:
        self.close()
        late()

    def _parting(self, _bits: int) -> None:
        try:
            gone = not self.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self.close()

    def close(self) -> None:
        """Close it now."""
        if self._timer is not None:
            self._timer.cancel()
        if self._bits:
            self._loop.unwatch(self._fd)
            self._bits = self.reading = 0
        self.sock.close()
        self._handler = _deaf  # it leads back to our owner: without it nothing waits for a gc
