"""One client connection and, while it has one, its connection to an instance.

The relay follows message boundaries on both sides. Between two messages the client's connection is
tied to nothing: its next request goes to whatever instance is live then. From the first byte of a
request that is passed on until both the request and its answer are complete, it belongs to one
instance. Opaque bytes belong to it until the end.

Back-pressure: a side is not read while anything for the other side is pending, so a conversation
holds at most one read (64 KiB) in each direction beside the head that it is collecting.
"""

from __future__ import annotations

import errno
import socket
from enum import Enum
from typing import TYPE_CHECKING

from hyperbox_agent.core.http1 import RequestTracker, ResponseTracker
from hyperbox_agent.supervise.holder_instances import STREAM_AFTER, Instance
from hyperbox_agent.supervise.holder_loop import IN, OUT

if TYPE_CHECKING:
    from hyperbox_agent.supervise.holder_loop import Timer
    from hyperbox_agent.supervise.holder_relay import Relay

READ = 64 * 1024
INBOX_LIMIT = 64 * 1024
"""What is read ahead of a client whose message waits or whose last message is not answered yet."""
REPLAY_LIMIT = 64 * 1024
LINGER = 2.0
"""How long (s) a client that is still sending is read after the last byte to it; closing at once
would reset the connection and could destroy the answer on its way."""

# States. Plain numbers: they are compared on every event.
HEAD, WAITING, CONNECTING, TALKING, OPAQUE, CLOSING, CLOSED = range(7)


class Connected(Enum):
    """How an attempt to reach an instance went."""

    YES = "yes"
    PENDING = "pending"
    REFUSED = "refused"
    EXHAUSTED = "exhausted"


_SPENT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))


class Conversation:
    """See the module. Made by the relay for each accepted connection; ends by itself."""

    __slots__ = (
        "_backend_bits", "_backend_eof", "_client_bits", "_client_eof", "_held", "_linger",
        "_local_port", "_replay", "_retried", "_reused", "_shut", "_to_backend", "_to_client",
        "address", "backend", "client", "inbox", "instance", "patience", "relay", "request",
        "response", "since", "state", "unsent", "waited_bytes", "waiting_since",
    )

    def __init__(self, relay: Relay, client: socket.socket,
                 address: tuple[str, int, int]) -> None:
        self.relay = relay
        self.client = client
        self.address = address
        self.state = HEAD
        self.request = RequestTracker()
        self.response = ResponseTracker()
        self.inbox = b""
        """Client bytes that are not part of a message on its way: a partial head, or the next."""
        self.unsent = b""
        """The bytes of a message that is to begin."""
        self.backend: socket.socket | None = None
        self.instance: Instance | None = None
        self.since = 0.0
        self.waiting_since = 0.0
        self.waited_bytes = 0
        self.patience: Timer | None = None
        self._held = b""
        """The part of an answer's head that has come."""
        self._replay: bytes | None = None
        """All that was passed of the request, while it can be sent again."""
        self._retried = False
        self._reused = False
        self._to_client = b""
        self._to_backend = b""
        self._client_eof = False
        self._backend_eof = False
        self._shut = False
        self._local_port = 0
        self._linger: Timer | None = None
        self._client_bits = IN
        self._backend_bits = 0
        relay.loop.watch(client.fileno(), IN, self.on_client)

    def is_stream(self, now: float) -> bool:
        """Whether nobody should wait for this exchange to end."""
        if self.state == OPAQUE or self.response.events:
            return True
        return now - self.since > STREAM_AFTER

    # -- the client's side ------------------------------------------------------------------

    def on_client(self, bits: int) -> None:
        """The client's connection is ready."""
        if bits & OUT and self._to_client:
            self._flush_client()
        if bits & ~OUT and self.state != CLOSED:
            self._read_client()

    def _read_client(self) -> None:
        if not self._client_bits & IN:
            return
        if self.state == HEAD and self.relay.is_full():
            self.relay.park(self)
            self._watch_client()
            return
        try:
            data = self.client.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            self._take(data)
        else:
            self._client_ended()

    def _take(self, data: bytes) -> None:
        state = self.state
        if state == HEAD:
            self._next_message(self.inbox + data if self.inbox else data)
        elif state == TALKING and not self.request.done:
            self._pass_request(data)
        elif state == OPAQUE:
            self._push_backend(data)
        elif state != CLOSING:
            self.inbox += data
            if state == WAITING:
                self.relay.count_waiting(self)
            self._watch_client()

    def _next_message(self, data: bytes) -> None:
        """Begin a message with ``data`` if its head is complete, else keep it."""
        taken = self.request.feed(data)
        if taken == 0:
            self.inbox = data
            if self._client_eof:
                self.close()
            return
        self.unsent = data if taken == len(data) else data[:taken]
        self.inbox = b"" if taken == len(data) else data[taken:]
        self._retried = False
        self.relay.admit(self)

    def _pass_request(self, data: bytes) -> None:
        taken = self.request.feed(data)
        if self.request.opaque:
            self._become_opaque()
        elif taken < len(data):
            self.inbox = data[taken:]
            data = data[:taken]
        if self._replay is not None:
            whole = self._replay + data
            self._replay = whole if len(whole) <= REPLAY_LIMIT else None
        self._push_backend(data)
        if self.request.done and self.response.done and self.state == TALKING:
            self._finish_exchange()

    def _client_ended(self) -> None:
        """End of the client's stream: pass it on, as a direct connection would."""
        self._client_eof = True
        if self.state in (TALKING, OPAQUE):
            self._watch_client()
            self._pass_end()
        else:
            self.close()

    def _pass_end(self) -> None:
        if self.backend is None or self._to_backend or self.inbox or self._shut:
            return
        self._shut = True
        try:
            self.backend.shutdown(socket.SHUT_WR)
        except OSError:
            self._backend_lost(unread=True)
            return
        if self._backend_eof:
            self.close()

    # -- the instance's side ----------------------------------------------------------------

    def connect(self, instance: Instance) -> Connected:
        """Open a connection to ``instance`` and send the message's first bytes."""
        host = instance.address[0]
        try:
            sock = socket.socket(
                socket.AF_INET6 if ":" in host else socket.AF_INET,
                socket.SOCK_STREAM | socket.SOCK_NONBLOCK,
            )
        except OSError:
            return Connected.EXHAUSTED
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._local_port = self.relay.name_peer(sock, host, self.address)
        self.backend = sock
        self.instance = instance
        self._reused = False
        error = sock.connect_ex(instance.address)
        if error in (0, errno.EINPROGRESS):
            return self._first_send(sock)
        self.drop_backend()
        return Connected.EXHAUSTED if error in _SPENT else Connected.REFUSED

    def _first_send(self, sock: socket.socket) -> Connected:
        # On loopback the handshake is over when connect returns: sending at once saves a turn.
        try:
            sent = sock.send(self.unsent)
        except BlockingIOError:
            self._set_backend_bits(OUT)
            self.state = CONNECTING
            return Connected.PENDING
        except OSError:
            self.drop_backend()
            return Connected.REFUSED
        self._begin(sent)
        return Connected.YES

    def use_kept(self) -> bool:
        """Send the message on the connection that is kept. False: it is gone."""
        sock, instance = self.backend, self.instance
        if sock is None or instance is None:
            return False
        instance.idle.discard(self)
        try:
            sent = sock.send(self.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop_backend()
            return False
        self._reused = True
        self._begin(sent)
        return True

    def _begin(self, sent: int) -> None:
        instance = self.instance
        assert instance is not None
        data = self.unsent
        self.unsent = b""
        self.relay.began(self, instance)
        self.state = OPAQUE if self.request.opaque else TALKING
        self.response.begin(self.request.method)
        self._replay = data if len(data) <= REPLAY_LIMIT else None
        self._to_backend = b"" if sent == len(data) else data[sent:]
        self._watch_backend()
        if self._to_backend:
            self._watch_client()
        if self.inbox and self.state != CLOSED and not self.request.done:
            inbox, self.inbox = self.inbox, b""
            self._take(inbox)
        if self._client_eof:
            self._pass_end()
        elif not self._client_bits:
            self._watch_client()

    def on_backend(self, bits: int) -> None:
        """The instance's connection is ready."""
        if self.state == CONNECTING:
            self._connected()
            return
        if bits & OUT and self._to_backend:
            self._flush_backend()
        if bits & ~OUT and self.backend is not None:
            self._read_backend()

    def _connected(self) -> None:
        sock = self.backend
        assert sock is not None
        self.relay.settled(self)
        if self._first_send(sock) is not Connected.YES:
            if self.backend is not None:
                self.drop_backend()
            self.relay.refused(self)

    def give_up_connecting(self) -> None:
        """No answer to the handshake: the instance's queue is full."""
        self.drop_backend()

    def _read_backend(self) -> None:
        sock = self.backend
        if sock is None or not self._backend_bits & IN:
            return
        try:
            data = sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            self._backend_lost(unread=True)
            return
        if not data:
            self._backend_ended(sock)
        elif self.state == TALKING:
            self._pass_response(data)
        elif self.state == OPAQUE:
            self._push_client(data)
        else:
            # Bytes that nobody asked for ("408 Request Timeout"): this connection is of no use.
            self.drop_backend()

    def _pass_response(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
            self._held = b""
        response = self.response
        if response.done:
            # An answer to bytes that we still take for the request's body: we lost count.
            self._become_opaque()
            self._push_client(data)
            return
        taken = response.feed(data)
        if taken < len(data) and not response.done:
            self._held = data[taken:]
        if taken:
            self._replay = None
            self._push_client(data if taken == len(data) else data[:taken])
        if self.state != TALKING:
            return
        if response.opaque:
            self._become_opaque()
            self._release_inbox()
        elif response.done:
            self._answered(whole=taken == len(data))

    def _answered(self, *, whole: bool) -> None:
        """The answer is complete. ``whole``: nothing came behind it."""
        if self.request.done:
            self._finish_exchange(reusable=whole)
        elif not self.response.keep:
            self._finish_exchange(reusable=False)
        elif self.request.expects:
            # The client may send the body that was not asked for, or not: no boundary to follow.
            self._become_opaque()

    def _finish_exchange(self, *, reusable: bool = True) -> None:
        instance = self.instance
        assert instance is not None
        self.relay.ended(self, instance)
        keep = self.request.keep and self.response.keep and self.request.done
        if not (keep and reusable and instance is self.relay.live and not self._shut):
            self.drop_backend()
        else:
            instance.idle.add(self)
        if not keep or (self._client_eof and not self.inbox):
            self.finish()
            return
        self.state = HEAD
        self.request.next()
        if self.inbox:
            inbox, self.inbox = self.inbox, b""
            self._next_message(inbox)
        if self.state == HEAD and not self._client_bits & IN:
            self._watch_client()

    def _become_opaque(self) -> None:
        self.state = OPAQUE
        self._replay = None

    def _release_inbox(self) -> None:
        if self.inbox:
            inbox, self.inbox = self.inbox, b""
            self._push_backend(inbox)
        if self.state == OPAQUE:
            self._watch_client()
            if self._client_eof:
                self._pass_end()

    def _backend_ended(self, sock: socket.socket) -> None:
        """The instance closed its side in order."""
        if self.state == TALKING and self.response.until_close and not self.response.done:
            self._finish_exchange(reusable=False)
        elif self.state == OPAQUE:
            self._backend_eof = True
            self._watch_backend()
            self._end_client()
        else:
            # A reset that came behind the end says that our bytes were never read.
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._backend_lost(unread=error != 0)

    def _end_client(self) -> None:
        """Pass the end of the instance's stream on, once everything before it is."""
        if self._to_client:
            return
        if self._client_eof:
            self.close()
            return
        try:
            self.client.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    def _backend_lost(self, *, unread: bool) -> None:
        """The connection ended where it should not. ``unread``: no byte of ours was read."""
        state, instance = self.state, self.instance
        if state not in (TALKING, OPAQUE) or instance is None:
            self.drop_backend()
            return
        replay = self._replay
        again = unread or (self._reused and self.request.idempotent)
        untouched = state == TALKING and not self._held and self.response.status == 0
        self.relay.ended(self, instance)
        self.drop_backend()
        if untouched and replay is not None and again and not self._retried:
            self._retried = True
            self.unsent = replay
            self._to_backend = b""
            self.relay.admit(self)
            return
        instance.failed += state == TALKING and not self.response.done
        if untouched:
            self.fail(502, "The program closed the connection before it answered.")
        else:
            self._push_client(self._held)
            self.finish()

    def cut(self) -> None:
        """End this exchange now, so that the client connects again."""
        instance = self.instance
        untouched = self.state == TALKING and self.response.status == 0
        if instance is not None:
            self.relay.ended(self, instance)
        self.drop_backend()
        if untouched:
            self.fail(503, "The version that was working on this request was replaced.")
        else:
            self.finish()

    def drop_backend(self) -> None:
        """Close the connection to the instance, if there is one."""
        sock, instance = self.backend, self.instance
        if sock is None or instance is None:
            return
        self._set_backend_bits(0)
        self.relay.peers.drop(self._local_port)
        sock.close()
        self.backend = self.instance = None
        instance.idle.discard(self)
        self._to_backend = self._held = b""
        self._replay = None
        self._shut = self._backend_eof = False

    # -- sending ------------------------------------------------------------------------------

    def _push_backend(self, data: bytes) -> None:
        if self._to_backend:
            self._to_backend += data
            return
        sock = self.backend
        if sock is None:
            return
        try:
            sent = sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._backend_deaf()
            return
        if sent < len(data):
            self._to_backend = data[sent:]
            self._watch_backend()
            self._watch_client()

    def _backend_deaf(self) -> None:
        """It takes no more bytes; what it said before may still be there to read."""
        self._to_backend = b""
        if self.state == TALKING and not self.request.done:
            self.request.keep = False
        self._watch_backend()
        if not self._backend_bits & IN:
            return
        self._read_backend()

    def _flush_backend(self) -> None:
        sock = self.backend
        assert sock is not None
        try:
            self._to_backend = self._to_backend[sock.send(self._to_backend):]
        except BlockingIOError:
            return
        except OSError:
            self._backend_deaf()
            return
        if not self._to_backend:
            self._watch_backend()
            self._watch_client()
            if self._client_eof:
                self._pass_end()

    def _push_client(self, data: bytes) -> None:
        if self.instance is not None:
            self.instance.bytes += len(data)
        if self._to_client:
            self._to_client += data
            return
        try:
            sent = self.client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._to_client = data[sent:]
            self._watch_client()
            self._watch_backend()

    def _flush_client(self) -> None:
        try:
            self._to_client = self._to_client[self.client.send(self._to_client):]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self._to_client:
            return
        self._watch_client()
        if self.state == CLOSING:
            self.finish()
        elif self._backend_eof:
            self._end_client()
        else:
            self._watch_backend()

    # -- ending -------------------------------------------------------------------------------

    def fail(self, status: int, text: str) -> None:
        """Answer in the program's place, then close."""
        reason = "Bad Gateway" if status == 502 else "Service Unavailable"
        body = b"" if self.request.method == b"HEAD" else f"hyperbox: {text}\n".encode()
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        if not self.request.opaque:
            self._push_client(head.encode() + body)
        self.finish()

    def finish(self) -> None:
        """Close the client's connection after its last byte."""
        if self.state == CLOSED:
            return
        self.drop_backend()
        self.state = CLOSING
        if self._to_client:
            self._watch_client()
            return
        if self.request.done and not self.inbox:
            self.close()
            return
        if self._linger is None:
            try:
                self.client.shutdown(socket.SHUT_WR)
            except OSError:
                self.close()
                return
            self._linger = self.relay.loop.later(LINGER, self.close)
            self.inbox = b""
            self._watch_client()

    def close(self) -> None:
        """Close both connections now."""
        if self.state == CLOSED:
            return
        instance = self.instance
        self.drop_backend()
        self.state = CLOSED
        if self._linger is not None:
            self._linger.cancel()
        self._set_client_bits(0)
        self.client.close()
        self.relay.closed(self, instance)

    # -- readiness ----------------------------------------------------------------------------

    def _watch_client(self) -> None:
        bits = OUT if self._to_client else 0
        if not (self._client_eof or self._to_backend or self.relay.is_parked(self)) and (
            len(self.inbox) < INBOX_LIMIT
        ):
            bits |= IN
        if bits != self._client_bits and self.state != CLOSED:
            self._set_client_bits(bits)

    def unpark(self) -> None:
        """Read the client again."""
        self._watch_client()

    def _set_client_bits(self, bits: int) -> None:
        # Not watched at all rather than watched for nothing: a hang-up is reported unasked, on
        # every turn.
        loop, fd = self.relay.loop, self.client.fileno()
        if not bits:
            loop.unwatch(fd)
        elif not self._client_bits:
            loop.watch(fd, bits, self.on_client)
        else:
            loop.change(fd, bits)
        self._client_bits = bits

    def _watch_backend(self) -> None:
        if self.backend is None:
            return
        bits = OUT if self._to_backend else 0
        if not self._to_client and not self._backend_eof:
            bits |= IN
        if bits != self._backend_bits:
            self._set_backend_bits(bits)

    def _set_backend_bits(self, bits: int) -> None:
        sock = self.backend
        assert sock is not None
        loop, fd = self.relay.loop, sock.fileno()
        if not bits:
            loop.unwatch(fd)
        elif not self._backend_bits:
            loop.watch(fd, bits, self.on_backend)
        else:
            loop.change(fd, bits)
        self._backend_bits = bits
