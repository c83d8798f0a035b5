"""One client connection and, while it has one, its connection to an instance.

The relay follows message boundaries on both sides. Between two messages the client's connection is
tied to nothing: its next request goes to whatever instance is live then. From the first byte of a
request that is passed on until both the request and its answer are complete, it belongs to one
instance. Opaque bytes belong to it until the end.

Back-pressure: a side is not read while anything for the other side is pending, so a conversation
holds at most one read (64 KiB) in each direction beside the head that it is collecting.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from hyperbox_agent.core.http1 import RequestTracker, ResponseTracker
from hyperbox_agent.supervise import holder_limits as limits
from hyperbox_agent.supervise.holder_connect import Connected, open_connection
from hyperbox_agent.supervise.holder_end import End
from hyperbox_agent.supervise.holder_instances import Instance
from hyperbox_agent.supervise.holder_loop import GONE, IN, OUT
from hyperbox_agent.supervise.holder_refusal import refusal

if TYPE_CHECKING:
    from hyperbox_agent.supervise.holder_loop import Timer
    from hyperbox_agent.supervise.holder_relay import Relay

# States. Plain numbers: they are compared on every event.
HEAD, WAITING, CONNECTING, TALKING, OPAQUE, CLOSING, CLOSED = range(7)


class Conversation:
    """See the module. Made by the relay for each accepted connection; ends by itself."""

    __slots__ = (
        "_held", "_local_port", "_relay", "_replay", "_response", "_retried", "_reused", "_timer",
        "address", "attempts", "backend", "client", "inbox", "instance", "parked", "request",
        "since", "state", "unsent", "waited_bytes", "waiting_since",
    )

    def __init__(self, relay: Relay, sock: socket.socket, address: tuple[str, int, int]) -> None:
        self._relay = relay
        self.address = address
        self.state = HEAD
        self.request = RequestTracker()
        self._response = ResponseTracker()
        self.inbox = b""  # client bytes of no message on its way: a partial head, or the next one
        self.unsent = b""  # the bytes of a message that is to begin
        self.client = End(relay.loop, sock, self.on_client)
        self.backend: End | None = None
        self.instance: Instance | None = None
        self.since = 0.0  # when the message on its way began
        self.waiting_since = 0.0
        self.waited_bytes = 0
        self.attempts = 0
        self.parked = False  # not read, because all that wait hold too much together
        self._held = b""  # the part of an answer's head that has come
        self._replay: bytes | None = None  # what was passed of a request that can be sent again
        self._retried = False
        self._reused = False
        self._local_port = 0
        self._timer: Timer | None = None
        self.client.watch(IN)

    def is_stream(self, now: float) -> bool:
        """Whether nobody should wait for this exchange to end."""
        if self.state == OPAQUE or self._response.events:
            return True
        return now - self.since > limits.STREAM_AFTER

    # -- the client's side ------------------------------------------------------------------

    def on_client(self, bits: int) -> None:
        """The client's connection is ready."""
        if bits & OUT and self.client.pending:
            self._flush_client()
        if self.client.reading:
            if bits & ~OUT:
                self._read_client()
        elif bits & ~(IN | OUT) and self.state in (WAITING, CONNECTING):
            self.finish()  # it left while its message waits

    def _read_client(self) -> None:
        client = self.client
        if self._relay.full and self.state == HEAD:
            self._relay.park(self)
            self.watch_client()
            return
        try:
            data = client.sock.recv(limits.READ)
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
                self._relay.count_waiting(self)
            self.watch_client()

    def _next_message(self, data: bytes) -> None:
        """Begin a message with ``data`` if its head is complete, else keep it."""
        taken = self.request.feed(data)
        if taken == 0:
            self.inbox = data
            if self.client.eof:
                self.finish()
            elif self._timer is None and b"\n" not in data:
                self._timer = self._relay.loop.later(limits.LINE_TIME, self._no_line)
            return
        if taken == len(data):
            self.unsent, self.inbox = data, b""
        else:
            self.unsent, self.inbox = data[:taken], data[taken:]
        self._retried = False
        self._relay.admit(self)

    def _no_line(self) -> None:
        """A client that stops within its first line may speak another protocol, and wait."""
        self._timer = None
        if self.state == HEAD and self.inbox.strip() and b"\n" not in self.inbox:
            self.request.opaque = True
            self._next_message(self.inbox)

    def _pass_request(self, data: bytes) -> None:
        taken = self.request.feed(data)
        if self.request.opaque:
            self._become_opaque()
        elif taken < len(data):
            self.inbox = data[taken:]
            data = data[:taken]
        if self._replay is not None:
            whole = self._replay + data
            self._replay = whole if len(whole) <= limits.REPLAY_LIMIT else None
        self._push_backend(data)
        if self.request.done and self._response.done and self.state == TALKING:
            self._finish_exchange()

    def _client_ended(self) -> None:
        """End of the client's stream: pass it on, as a direct connection would."""
        self.client.eof = True
        if self.state in (TALKING, OPAQUE):
            self.watch_client()
            self._pass_end()
        else:
            self.finish()

    def _pass_end(self) -> None:
        backend = self.backend
        if backend is None or backend.pending or backend.shut or self.inbox:
            return
        if not backend.shut_down():
            self._backend_lost(unread=True)
        elif backend.eof:
            self.close()

    # -- beginning a message ------------------------------------------------------------------

    def connect(self, instance: Instance) -> Connected:
        """Open a connection to ``instance`` and send the message's first bytes."""
        sock, self._local_port = open_connection(instance.address, self._relay.peers, self.address)
        if isinstance(sock, Connected):
            return sock
        self.backend = End(self._relay.loop, sock, self.on_backend)
        self.instance = instance
        self._reused = False
        return self._first_send(self.backend)

    def _first_send(self, backend: End) -> Connected:
        # On loopback the handshake is over when connect returns: sending at once saves a turn.
        try:
            sent = backend.sock.send(self.unsent)
        except BlockingIOError:
            backend.await_room()
            self.state = CONNECTING
            return Connected.PENDING
        except OSError:
            self.drop_backend()
            return Connected.REFUSED
        self._begin(backend, sent)
        return Connected.YES

    def use_kept(self) -> bool:
        """Send the message on the connection that is kept. False: it is gone."""
        backend = self.backend
        if backend is None:
            return False
        try:
            sent = backend.sock.send(self.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop_backend()
            return False
        self._reused = True
        self._begin(backend, sent)
        return True

    def _begin(self, backend: End, sent: int) -> None:
        data, self.unsent = self.unsent, b""
        request = self.request
        self._relay.began(self)
        self.state = OPAQUE if request.opaque else TALKING
        self._response.begin(request.method)
        self._replay = data if len(data) <= limits.REPLAY_LIMIT else None
        if sent != len(data):
            backend.pending = data[sent:]
        backend.watch(0 if self.client.pending else IN)
        if self.inbox and not request.done:
            inbox, self.inbox = self.inbox, b""
            self._take(inbox)
        if self.client.eof:
            self._pass_end()
        if not self.client.reading or backend.pending:
            self.watch_client()

    def on_backend(self, bits: int) -> None:
        """The instance's connection is ready."""
        if self.state == CONNECTING:
            self._connected()
            return
        if bits & OUT and self.backend is not None and self.backend.pending:
            self._flush_backend(self.backend)
        if bits & ~OUT and self.backend is not None:
            self._read_backend(self.backend)

    def _connected(self) -> None:
        """The handshake is over. The instance may have been replaced meanwhile."""
        backend = self.backend
        assert backend is not None
        self._relay.settled(self)
        if not self._relay.may_begin(self) or self._first_send(backend) is not Connected.YES:
            self.drop_backend()
            self._relay.wait_first(self)

    def _read_backend(self, backend: End) -> None:
        if not backend.reading:
            return
        try:
            data = backend.sock.recv(limits.READ)
        except BlockingIOError:
            return
        except OSError:
            self._backend_lost(unread=True)
            return
        if not data:
            self._backend_ended(backend)
        elif self.state == TALKING:
            self._pass_response(data)
        elif self.state == OPAQUE:
            self._push_client(data)
        else:
            # Bytes that nobody asked for ("408 Request Timeout"): this connection is of no use.
            self.drop_backend()

    def _pass_response(self, data: bytes) -> None:
        data, self._held = self._held + data, b""
        response = self._response
        if response.done:
            # An answer to bytes that we still take for the request's body: we lost count.
            self._become_opaque()
            self._push_client(data)
            return
        taken = response.feed(data)
        if taken:
            self._replay = None
            self._push_client(data if taken == len(data) else data[:taken])
            if self.state != TALKING:
                return
        if response.done:
            self._answered(whole=taken == len(data))
            return
        if taken < len(data):
            self._held = data[taken:]
        if response.opaque:
            self._become_opaque()
            self._release_inbox()
        elif self.backend is not None:
            self.backend.acknowledge()

    def _answered(self, *, whole: bool) -> None:
        """The answer is complete. ``whole``: nothing came behind it."""
        if self.request.done or not self._response.keep:
            self._finish_exchange(reusable=whole)
        elif self.request.expects:
            # The client may send the body that was not asked for, or not: no boundary to follow.
            self._become_opaque()

    def _finish_exchange(self, *, reusable: bool = True) -> None:
        instance, backend, client = self.instance, self.backend, self.client
        assert instance is not None
        assert backend is not None
        request = self.request
        self._relay.ended(self, instance)
        keep = request.done and request.keep and self._response.keep
        if not (keep and reusable and instance is self._relay.live) or backend.shut:
            self.drop_backend(closes=reusable and request.done and not keep)
        if not keep or (client.eof and not self.inbox):
            self.finish()
            return
        self.state = HEAD
        request.next()
        if self.inbox:
            inbox, self.inbox = self.inbox, b""
            self._next_message(inbox)
        if self.state == HEAD and not client.reading:
            self.watch_client()

    def _become_opaque(self) -> None:
        self.state = OPAQUE
        self._replay = None

    def _release_inbox(self) -> None:
        if self.inbox:
            inbox, self.inbox = self.inbox, b""
            self._push_backend(inbox)
        if self.state == OPAQUE:
            self.watch_client()
            if self.client.eof:
                self._pass_end()

    def _backend_ended(self, backend: End) -> None:
        """The instance closed its side in order."""
        if self.state == TALKING and self._response.until_close and not self._response.done:
            self._finish_exchange(reusable=False)
        elif self.state == OPAQUE:
            backend.eof = True
            backend.watch(0)
            if not self.client.pending:
                self._end_client()
        else:
            self._backend_lost(unread=backend.reset_seen())

    def _end_client(self) -> None:
        """Pass the end of the instance's stream on: everything before it has been."""
        if self.client.eof or not self.client.shut_down():
            self.close()

    def _backend_lost(self, *, unread: bool) -> None:
        """The connection ended where it should not. ``unread``: no byte of ours was read."""
        state, instance, replay = self.state, self.instance, self._replay
        if state not in (TALKING, OPAQUE) or instance is None:
            self.drop_backend()
            return
        untouched, held = state == TALKING and self._response.status == 0, self._held
        again = unread or (self._reused and self.request.idempotent)
        self.drop_backend()
        if untouched and not held and replay is not None and again and not self._retried:
            self._retried = True
            self.unsent = replay
            self._relay.admit(self)
            return
        if state == TALKING and not self._response.done:
            instance.failed += 1
        if untouched and not held:
            self.fail(502, "The program closed the connection before it answered.")
            return
        if held:
            self._push_client(held)
        self.finish()

    def cut(self) -> None:
        """End this exchange now, so that the client connects again."""
        untouched = self.state == TALKING and self._response.status == 0
        self.drop_backend()
        if untouched:
            self.fail(503, "The version that was working on this request was replaced.")
        else:
            self.finish()

    def drop_backend(self, *, closes: bool = False) -> None:
        """Close the connection to the instance, if there is one; ``closes``: it does so itself."""
        backend, instance = self.backend, self.instance
        if backend is None or instance is None:
            return
        self._relay.peers.drop(self._local_port)
        close = instance.let_close if closes else End.close
        close(backend)
        self.backend = self.instance = self._replay = None
        self._held = b""
        self._relay.ended(self, instance)

    # -- passing bytes ------------------------------------------------------------------------

    def _push_backend(self, data: bytes) -> None:
        backend = self.backend
        if backend is None:
            return
        if not backend.send(data):
            self._backend_deaf(backend)
        elif backend.pending:
            self.watch_client()

    def _flush_backend(self, backend: End) -> None:
        if not backend.flush():
            self._backend_deaf(backend)
        elif not backend.pending:
            backend.watch(backend.reading)
            self.watch_client()
            if self.client.eof:
                self._pass_end()

    def _backend_deaf(self, backend: End) -> None:
        """It takes no more bytes; what it said before may still be there to read."""
        backend.pending = b""
        backend.watch(backend.reading)
        self.watch_client()
        self._read_backend(backend)

    def _push_client(self, data: bytes) -> None:
        if self.instance is not None:
            self.instance.bytes += len(data)
        client = self.client
        if not client.send(data):
            self.close()
        elif client.pending and self.backend is not None:
            self.backend.watch(0)

    def _flush_client(self) -> None:
        client, backend = self.client, self.backend
        if not client.flush():
            self.close()
            return
        if client.pending:
            return
        self.watch_client()
        if self.state == CLOSING:
            self.finish()
        elif backend is not None and self.state != CONNECTING:
            if backend.eof:
                self._end_client()
            else:
                backend.watch(IN)

    def watch_client(self) -> None:
        """Read the client if there is room for what it sends."""
        if self.state == CLOSED:
            return
        full = len(self.inbox) >= limits.INBOX_LIMIT or (self.backend and self.backend.pending)
        if not (self.client.eof or self.parked or full):
            self.client.watch(IN)
        else:
            self.client.watch(GONE if self.state in (WAITING, CONNECTING) else 0)

    # -- ending -------------------------------------------------------------------------------

    def fail(self, status: int, text: str) -> None:
        """Answer in the program's place, then close."""
        if not self.request.opaque:
            head_only = self.request.method == b"HEAD"
            self._push_client(refusal(status, text, head_only=head_only))
        self.finish()

    def finish(self) -> None:
        """Close the client's connection after its last byte."""
        if self.state == CLOSED:
            return
        self.drop_backend()
        self.state = CLOSING
        self._relay.leave(self)
        if self.client.pending:
            self.watch_client()
        elif self.client.eof or (self.request.done and not self.inbox):
            self.close()
        else:
            self.inbox = b""
            self._cancel_timer()
            self._timer = self._relay.loop.later(limits.LINGER, self.close)
            if not self.client.shut_down():
                self.close()
            self.watch_client()

    def close(self) -> None:
        """Close both connections now."""
        if self.state == CLOSED:
            return
        self.drop_backend()
        self.state = CLOSED
        self._cancel_timer()
        self.client.close()
        self._relay.closed(self)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
