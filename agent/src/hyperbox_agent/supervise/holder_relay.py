"""The relay: accepts clients, knows which instance is live, lets messages wait and pass.

Invariants: one listening socket per address, never bound again; a message begins on the instance
that is live when it begins and ends there; what can't begin waits, first come first served.
"""

from __future__ import annotations

import errno
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from hyperbox_agent.supervise import holder_limits as limits
from hyperbox_agent.supervise.holder_connect import Connected
from hyperbox_agent.supervise.holder_conversation import HEAD, WAITING, Conversation
from hyperbox_agent.supervise.holder_instances import Drain, Instance, Rate
from hyperbox_agent.supervise.holder_loop import IN, Loop, Timer
from hyperbox_agent.supervise.peers import PeersTable

Address = tuple[str, int, int]


class Relay:
    """See the module. ``loop`` is its world; the control side calls the public methods."""

    def __init__(self, loop: Loop, peers: PeersTable, *, max_wait: float | None = None) -> None:
        self.loop = loop
        self.peers = peers
        self.max_wait = max_wait
        self.live: Instance | None = None
        self.live_number: int | None = None
        self.holding: Hold | None = None
        self.instances: list[Instance] = []
        self.listeners: list[socket.socket] = []
        self.talks: set[Conversation] = set()
        self._waiting: OrderedDict[Conversation, None] = OrderedDict()
        self._connecting: Conversation | None = None
        self._buffered = 0
        self.full = False
        """Waiting messages hold so much that no more should be read."""
        self._parked: set[Conversation] = set()
        self._patience: Timer | None = None
        self._pump_timer: Timer | None = None
        self._accept_timer: Timer | None = None
        self._wait_timer: Timer | None = None
        self._rate = Rate(loop.now)

    # -- accepting ----------------------------------------------------------------------------

    def listen(self, sockets: list[socket.socket]) -> None:
        """Accept on these listening sockets from now on, and on no other."""
        self.unlisten()
        for sock in sockets:
            sock.setblocking(False)
        self.listeners = sockets
        self._accept_on()

    def unlisten(self) -> None:
        """Close the listening sockets."""
        self._accept_off()
        for sock in self.listeners:
            sock.close()
        self.listeners = []

    def _accept_on(self) -> None:
        self._accept_timer = None
        for sock in self.listeners:
            self.loop.watch(sock.fileno(), IN, self._acceptor(sock))

    def _accept_off(self) -> None:
        if self._accept_timer is not None:
            self._accept_timer.cancel()
            self._accept_timer = None
        for sock in self.listeners:
            self.loop.unwatch(sock.fileno())

    def _acceptor(self, sock: socket.socket) -> Callable[[int], None]:
        family = sock.family

        def accept(_bits: int) -> None:
            for _ in range(limits.ACCEPTS):
                try:
                    client, address = sock.accept()
                except BlockingIOError:
                    return
                except OSError as error:
                    self._accept_failed(error)
                    return
                client.setblocking(False)
                self.talks.add(Conversation(self, client, (address[0], address[1], family)))

        return accept

    def _accept_failed(self, error: OSError) -> None:
        """Out of descriptors: the queue keeps the connections; asking at once would spin."""
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self._accept_off()
            self._accept_timer = self.loop.later(limits.SPENT_PAUSE, self._accept_on)

    # -- what conversations ask ---------------------------------------------------------------

    def admit(self, talk: Conversation) -> None:
        """Let the message that ``talk`` has ready begin now, or wait for its turn."""
        if talk.instance is not None and self.may_begin(talk) and talk.use_kept():
            return
        talk.waiting_since = self.loop.now
        talk.attempts = 0
        talk.state = WAITING
        self._waiting[talk] = None
        if self.live is None or self.holding is not None or self._pump_timer is not None:
            self.count_waiting(talk)
            self._watch_waits()
        else:
            self.pump()

    def may_begin(self, talk: Conversation) -> bool:
        """Whether the instance that ``talk`` is connected to may be sent a message now."""
        return talk.instance is self.live and self.holding is None

    def began(self, talk: Conversation) -> None:
        """The first bytes of a message are on their way to the live instance."""
        instance, now = self.live, self.loop.now
        assert instance is not None
        if talk.state != HEAD:
            self.leave(talk)
            instance.longest_wait = max(instance.longest_wait, now - talk.waiting_since)
            instance.refused_since = None
        talk.since = now
        instance.requests += 1
        instance.inflight.add(talk)
        self._rate.add(now)

    def ended(self, talk: Conversation, instance: Instance) -> None:
        """The exchange is over, well or not."""
        instance.inflight.discard(talk)
        if instance.draining is not None:
            instance.draining.check()
        if self.holding is not None:
            self.holding.check()

    def closed(self, talk: Conversation) -> None:
        """The conversation is over."""
        self.leave(talk)
        self._parked.discard(talk)
        self.talks.discard(talk)
        if self._accept_timer is not None:
            self._accept_timer.cancel()
            self._accept_on()

    # -- waiting ------------------------------------------------------------------------------

    def pump(self) -> None:
        """Let waiting messages begin, as many as the live instance takes."""
        if self._pump_timer is not None:
            self._pump_timer.cancel()
            self._pump_timer = None
        while self._waiting and self.live is not None and self.holding is None:
            talk = next(iter(self._waiting))
            if talk.backend is not None:
                if talk.instance is self.live and talk.use_kept():
                    continue
                talk.drop_backend()
            if self._connecting is not None:
                return
            pause = self._connect(talk, self.live)
            if pause:
                self._pump_later(pause)
                return

    def _connect(self, talk: Conversation, instance: Instance) -> float:
        """Connect the first in the queue; how long (s) to pause if it has to stay there."""
        outcome = talk.connect(instance)
        if outcome is Connected.PENDING:
            self._await_handshake(talk)
        elif outcome is Connected.EXHAUSTED:
            return limits.SPENT_PAUSE
        elif outcome is Connected.REFUSED and not self._give_up(talk, instance):
            return limits.RETRY
        return 0.0

    def _pump_later(self, seconds: float) -> None:
        self._pump_timer = self.loop.later(seconds, self.pump)
        for talk in self._waiting:
            self.count_waiting(talk)

    def _await_handshake(self, talk: Conversation) -> None:
        del self._waiting[talk]
        self._connecting = talk
        patience = min(limits.PATIENCE * 2 ** (talk.attempts // 4), limits.PATIENCE_LIMIT)
        talk.attempts += 1
        self._patience = self.loop.later(patience, lambda: self._handshake_failed(talk))

    def _handshake_failed(self, talk: Conversation) -> None:
        self.settled(talk)
        talk.drop_backend()
        self.wait_first(talk)

    def settled(self, talk: Conversation) -> None:
        """The handshake of ``talk`` is over, well or not."""
        if talk is self._connecting:
            self._connecting = None
            if self._patience is not None:
                self._patience.cancel()
            if self._waiting and self._pump_timer is None:
                self._pump_timer = self.loop.later(0.0, self.pump)

    def wait_first(self, talk: Conversation) -> None:
        """Put ``talk`` back: it was the first in the queue."""
        talk.state = WAITING
        self._waiting[talk] = None
        self._waiting.move_to_end(talk, last=False)
        if self._pump_timer is None:
            self._pump_timer = self.loop.later(0.0, self.pump)

    def _give_up(self, talk: Conversation, instance: Instance) -> bool:
        """Whether the refusals have lasted so long that ``talk`` got its 502."""
        now = self.loop.now
        if instance.refused_since is None:
            instance.refused_since = now
        if now - instance.refused_since <= limits.REFUSED_FOR:
            return False
        instance.failed += 1
        talk.fail(502, "The program does not accept connections.")
        return True

    def leave(self, talk: Conversation) -> None:
        """``talk`` waits no more."""
        self.settled(talk)
        self._waiting.pop(talk, None)
        if talk.waited_bytes:
            self._buffered -= talk.waited_bytes
            talk.waited_bytes = 0
            self.full = self._buffered >= limits.BUFFER_LIMIT
            if self._parked and not self.full:
                self._unpark()

    def count_waiting(self, talk: Conversation) -> None:
        """Keep the sum of what waiting messages hold."""
        held = len(talk.unsent) + len(talk.inbox)
        self._buffered += held - talk.waited_bytes
        talk.waited_bytes = held
        self.full = self._buffered >= limits.BUFFER_LIMIT

    def park(self, talk: Conversation) -> None:
        """Do not read ``talk`` until there is room."""
        talk.parked = True
        self._parked.add(talk)

    def _unpark(self) -> None:
        parked, self._parked = self._parked, set()
        for talk in parked:
            talk.parked = False
            talk.watch_client()

    def _watch_waits(self) -> None:
        if self.max_wait is not None and self._wait_timer is None and self._waiting:
            oldest = next(iter(self._waiting)).waiting_since
            left = oldest + self.max_wait - self.loop.now
            self._wait_timer = self.loop.later(max(0.01, left), self._expire_waits)

    def _expire_waits(self) -> None:
        self._wait_timer = None
        assert self.max_wait is not None
        while self._waiting:
            talk = next(iter(self._waiting))
            if self.loop.now - talk.waiting_since < self.max_wait:
                break
            talk.fail(503, "No version of the program is ready.")
        self._watch_waits()

    # -- what the agent asks ------------------------------------------------------------------

    def switch(self, number: int, address: tuple[str, int] | None) -> None:
        """New messages go to this instance from now on; None: they wait."""
        old = self.live
        self.live_number = number
        if address is None:
            self.live = None
        elif old is None or (old.number, old.address) != (number, address):
            self.live = Instance(number, address)
            self.instances.append(self.live)
            self._forget_old()
        if old is not None and old is not self.live:
            for talk in self.talks:
                if talk.instance is old and talk.state in (HEAD, WAITING):
                    talk.drop_backend()
        if self.holding is not None:
            self.holding.check()
        self.pump()

    def _forget_old(self) -> None:
        while len(self.instances) > limits.REMEMBERED and not self.instances[0].inflight:
            del self.instances[0]

    def drain(self, number: int, seconds: float, told: Callable[[int, float], None]) -> None:
        """Tell how many were cut when nothing of ``number`` is in flight or time is up."""
        old = [it for it in self.instances if it.number == number and it is not self.live]
        left = [it for it in old if it.inflight]
        if not left:
            told(0, 0.0)
            return
        draining = [it.draining for it in self.instances if it.draining and it not in left]
        for drain in draining[: max(0, len(draining) - limits.DRAINS + 1)]:
            drain.cut()
        total = _Sum(len(left), told)
        for instance in left:
            if instance.draining is not None:
                instance.draining.cut()
            instance.draining = Drain(self.loop, instance, seconds, total.add)
            instance.draining.check()

    def hold(self, seconds: float, told: Callable[[int, float], None]) -> None:
        """Let no message begin; tell when what is in flight on the live instance has ended."""
        self.release()
        self.holding = Hold(self, seconds, told)
        self.holding.check()

    def release(self) -> None:
        """Let messages begin again."""
        holding, self.holding = self.holding, None
        if holding is not None:
            holding.tell()
            self.pump()

    def stats(self) -> dict[str, Any]:
        """Counts by number, and of the port as a whole."""
        now = self.loop.now
        numbers: dict[int, dict[str, Any]] = {}
        for instance in self.instances:
            counts = instance.counts(now)
            sums = numbers.setdefault(instance.number, counts)
            if sums is not counts:
                for key, value in counts.items():
                    join = max if key == "longest_wait_ms" else int.__add__
                    sums[key] = join(sums[key], value)
        return {
            "numbers": {str(number): counts for number, counts in numbers.items()},
            "live": self.live_number if self.live is not None else None,
            "waiting": len(self._waiting) + (self._connecting is not None),
            "connections": len(self.talks),
            "per_second": self._rate.per_second(now),
        }

    def close(self) -> None:
        """End every connection and stop listening."""
        self.unlisten()
        for talk in list(self.talks):
            talk.close()


class _Sum:
    """Tells once, when each of several drains has ended."""

    def __init__(self, parts: int, told: Callable[[int, float], None]) -> None:
        self._parts = parts
        self._told = told
        self._cut = 0

    def add(self, cut: int, ms: float) -> None:
        self._parts -= 1
        self._cut += cut
        if self._parts == 0:
            self._told(self._cut, ms)


class Hold:
    """While it lasts, no message begins. Tells when the live instance is quiet."""

    def __init__(self, relay: Relay, seconds: float, told: Callable[[int, float], None]) -> None:
        self._relay = relay
        self._since = relay.loop.now
        self._told: Callable[[int, float], None] | None = told
        self._timer = relay.loop.later(seconds, self.tell)
        self._look: Timer | None = None

    def _busy(self) -> list[Conversation]:
        live, now = self._relay.live, self._relay.loop.now
        return [] if live is None else [t for t in live.inflight if not t.is_stream(now)]

    def check(self) -> None:
        """Tell now if nothing is left to wait for."""
        if self._told is None:
            return
        busy = self._busy()
        if not busy:
            self.tell()
        elif self._look is None:
            oldest = min(talk.since for talk in busy)
            after = oldest + limits.STREAM_AFTER - self._relay.loop.now
            self._look = self._relay.loop.later(max(0.001, after), self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self.check()

    def tell(self) -> None:
        """Say how it stands, once."""
        told, self._told = self._told, None
        if told is None:
            return
        self._timer.cancel()
        if self._look is not None:
            self._look.cancel()
        told(len(self._busy()), (self._relay.loop.now - self._since) * 1000)

