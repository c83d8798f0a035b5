"""The holder's parts by themselves, on this process's own loop in a thread."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyperbox_agent.supervise import holder_escrow, holder_limits
from hyperbox_agent.supervise.holder_escrow import Kept, OrphanLog
from hyperbox_agent.supervise.holder_instances import Rate
from hyperbox_agent.supervise.holder_loop import IN, OUT, Loop
from hyperbox_agent.supervise.holder_relay import Relay
from hyperbox_agent.supervise.peers import RECORD, SIZE, PeersTable, look_up


class Running:
    """A relay on a loop in a thread; ``do`` runs something on it."""

    def __init__(self, folder: Path, *, plain: bool) -> None:
        self.loop = Loop(plain=plain)
        self.relay = Relay(self.loop, PeersTable(str(folder / "peers")))
        door = socket.create_server(("127.0.0.1", 0))
        self.address = door.getsockname()
        self.relay.listen([door])
        self._wake, self._bell = socket.socketpair()
        self._calls: list[Callable[[], object]] = []
        self.loop.watch(self._wake.fileno(), IN, self._ring)
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def _ring(self, _bits: int) -> None:
        self._wake.recv(100)
        while self._calls:
            self._calls.pop(0)()

    def do(self, call: Callable[[], object]) -> object:
        done, found = threading.Event(), []
        self._calls.append(lambda: (found.append(call()), done.set()))
        self._bell.send(b"!")
        assert done.wait(10)
        return found[0]

    def stop(self) -> None:
        self.do(self.relay.close)
        self.do(self.loop.stop)
        self._thread.join()
        self.relay.peers.close()
        self._wake.close()
        self._bell.close()


@pytest.fixture(params=[False, True], ids=["epoll", "poll"])
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    made = Running(tmp_path, plain=request.param)
    yield made
    made.stop()


def serve_once(answer: bytes) -> tuple[socket.socket, threading.Thread, list[bytes]]:
    """A server that reads to the end of a request's head, answers and closes."""
    door = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def run() -> None:
        sock, _ = door.accept()
        with sock:
            data = b""
            while b"\r\n\r\n" not in data and (more := sock.recv(65536)):
                data += more
            seen.append(data)
            sock.sendall(answer)

    thread = threading.Thread(target=run)
    thread.start()
    return door, thread, seen


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_loop_relays_with_epoll_and_with_poll(running: Running) -> None:
    body = os.urandom(3_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n"
    door, thread, _ = serve_once(head + body)
    running.do(lambda: running.relay.switch(1, door.getsockname()))
    with socket.create_connection(running.address) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        data = b""
        while len(data) < len(head) + len(body):
            data += client.recv(1 << 20)
    assert data == head + body
    thread.join()
    door.close()


def test_waiting_messages_hold_no_more_than_the_limit(
    running: Running, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holder_limits, "BUFFER_LIMIT", 100_000)
    clients = [socket.create_connection(running.address) for _ in range(8)]
    request = b"PUT / HTTP/1.1\r\nContent-Length: 50000\r\n\r\n" + bytes(50_000)
    for client in clients:
        client.sendall(request)
    relay = running.relay
    wait_until(lambda: relay.full and len(relay._parked) + len(relay._waiting) == 8)
    assert len(relay._waiting) < 8
    assert relay._buffered < 100_000 + 2 * len(request)

    def serve(door: socket.socket) -> None:
        for _ in clients:
            sock, _ = door.accept()
            with sock:
                left = len(request)
                while left:
                    left -= len(sock.recv(left))
                sock.sendall(b"HTTP/1.1 204 Done\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve, args=(door,))
        thread.start()
        running.do(lambda: relay.switch(1, door.getsockname()))
        for client in clients:
            assert client.recv(100).startswith(b"HTTP/1.1 204")
            client.close()
        thread.join()
    wait_until(lambda: not relay.talks)
    assert (relay._buffered, relay.full) == (0, False)


def test_a_client_that_stops_within_its_first_line_is_passed_on(
    running: Running, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holder_limits, "LINE_TIME", 0.05)
    door, thread, seen = serve_once(b"")
    running.do(lambda: running.relay.switch(1, door.getsockname()))
    with socket.create_connection(running.address) as client:
        client.sendall(b"PING")
        client.settimeout(10)
        time.sleep(0.1)
        client.sendall(b" and\r\n\r\n")
        assert client.recv(100) == b""
    thread.join()
    door.close()
    assert seen == [b"PING and\r\n\r\n"]


def test_a_fault_in_one_handler_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop()
    bad, good = socket.socketpair()

    def faulty(_bits: int) -> None:
        raise ValueError("a fault of ours")

    def fine(_bits: int) -> None:
        loop.later(0, loop.stop)
        loop.later(0, lambda: faulty(0))

    loop.watch(bad.fileno(), OUT, faulty)
    loop.watch(good.fileno(), OUT, fine)
    loop.run()
    assert capsys.readouterr().err.count("ValueError: a fault of ours") == 2
    bad.close()
    good.close()


def test_the_rate_is_of_the_last_ten_seconds() -> None:
    rate = Rate(100.0)
    for second in range(100, 130):
        for _ in range(second - 99):
            rate.add(second + 0.5)
    assert rate.per_second(129.9) == sum(range(21, 31)) / 10
    assert rate.per_second(134.5) == sum(range(26, 31)) / 10
    assert rate.per_second(500) == 0
    assert Rate(0.0).per_second(0.1) == 0


@pytest.mark.parametrize(("address", "seen"), [
    (("192.0.2.7", 1234, socket.AF_INET), ("192.0.2.7", 1234)),
    (("2001:db8::7", 65535, socket.AF_INET6), ("2001:db8::7", 65535)),
    (("fe80::1%lo", 80, socket.AF_INET6), ("fe80::1", 80)),
])
def test_a_record_of_the_peers_table(tmp_path: Path, address: tuple[str, int, int],
                                     seen: tuple[str, int]) -> None:
    table = PeersTable(str(tmp_path / "peers"))
    table.put(65535, address)
    table.put(1, ("192.0.2.1", 1, socket.AF_INET))
    assert look_up(table.path, 65535) == seen
    assert os.stat(table.path).st_size == SIZE
    record = Path(table.path).read_bytes()[RECORD : 2 * RECORD]
    assert record == b"\x04\x00\x00\x01" + bytes(4) + b"\xc0\x00\x02\x01" + bytes(12)
    table.drop(65535)
    assert look_up(table.path, 65535) is None
    table.close()
    assert stat.S_IMODE(os.stat(table.path).st_mode) == 0o600


def test_a_log_that_cannot_be_written_loses_output_and_nothing_else(tmp_path: Path) -> None:
    log = OrphanLog(str(tmp_path / "gone" / "orphan-1.log"))
    log.write(b"text")
    log.close()
    assert not log.written


def test_what_is_kept_is_drained_to_its_end_and_sockets_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holder_escrow, "LOG_LIMIT", 100_000)
    loop = Loop()
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    ours.send(b"not output")
    kept = Kept(5, os.getpid(), [os.dup(reading), os.dup(theirs.fileno()), os.dup(writing)], {})
    kept.drain(loop, str(tmp_path / "orphan-5.log"))
    writer = threading.Thread(target=lambda: (os.write(writing, b"x" * 150_000)))
    writer.start()
    loop.later(0.05, lambda: loop.stop() if not writer.is_alive() else loop.later(0.2, loop.stop))
    loop.run()
    writer.join()
    kept.stop_draining(Loop())
    sizes = {it.name: it.stat().st_size for it in tmp_path.iterdir()}
    assert sum(sizes.values()) == 150_000
    assert set(sizes) == {"orphan-5.log", "orphan-5.log.1"}
    assert theirs.recv(100) == b"not output"
    kept.close(Loop())
    for fd in (reading, writing):
        os.close(fd)
    ours.close()
    theirs.close()


def test_a_process_that_was_replaced_is_not_ended() -> None:
    kept = Kept(1, os.getpid(), [], {})
    assert kept.alive()
    kept.start = 1  # another process had this number before
    assert not kept.alive()
    kept.end(9)  # type: ignore[arg-type]
