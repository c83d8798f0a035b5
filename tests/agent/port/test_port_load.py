"""A steady load over many switches: nothing refused, reset, cut or mixed."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import threading
import time

import pytest

from hyperbox_agent.supervise.port import Port

SECONDS = 2.0
CLIENTS = 6
PAUSE = CLIENTS / 300
BODY = 20_000


class Server:
    """A small threaded server, as people have them, that answers with one letter many times."""

    def __init__(self, letter: str, protocol: str) -> None:
        body = letter.encode() * BODY

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = protocol

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address: tuple[str, int] = self._server.server_address[:2]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Client(threading.Thread):
    """Asks at a steady rate, kept or on new connections, and notes what is wrong."""

    def __init__(self, address: tuple[str, int], *, kept: bool) -> None:
        super().__init__()
        self._address = address
        self._kept = kept
        self.faults: list[str] = []
        self.waits: list[float] = []
        self.seen: set[bytes] = set()

    def run(self) -> None:
        end = time.monotonic() + SECONDS
        connection = http.client.HTTPConnection(*self._address, timeout=10)
        while time.monotonic() < end:
            begin = time.monotonic()
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or len(body) != BODY or len(set(body)) != 1:
                    self.faults.append(f"{answer.status} {len(body)} {set(body)}")
                self.seen.add(body[:1])
            except (OSError, http.client.HTTPException) as error:
                self.faults.append(repr(error))
                connection.close()
            self.waits.append(time.monotonic() - begin)
            if not self._kept:
                connection.close()
            time.sleep(max(0.0, PAUSE - (time.monotonic() - begin)))
        connection.close()


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
async def test_a_steady_load_loses_nothing_over_many_switches(port: Port, protocol: str) -> None:
    letters = "abcdefghijklmnopqrst"
    server = await asyncio.to_thread(Server, letters[0], protocol)
    await port.switch(1, server.address)
    clients = [Client(port.address, kept=n % 2 == 0) for n in range(CLIENTS)]
    for client in clients:
        client.start()
    ended: list[asyncio.Future[None]] = []

    async def drain_and_stop(number: int, old: Server) -> None:
        await port.drain(number, 3)
        await asyncio.to_thread(old.stop)

    for number, letter in enumerate(letters[1:], start=2):
        await asyncio.sleep(SECONDS / len(letters))
        if number % 4 == 0:  # programs that must not overlap
            await port.switch(number, None)
            await drain_and_stop(number - 1, server)
            server = await asyncio.to_thread(Server, letter, protocol)
            await port.switch(number, server.address)
            continue
        new = await asyncio.to_thread(Server, letter, protocol)
        if number % 4 == 1:  # around the apply of a batch
            await port.hold(0.5)
        await port.switch(number, new.address)
        if number % 4 == 1:
            await port.release()
        ended.append(asyncio.ensure_future(drain_and_stop(number - 1, server)))
        server = new
    for client in clients:
        await asyncio.to_thread(client.join)
    await asyncio.gather(*ended)
    stats = await port.stats()
    await port.switch(99, None)
    await asyncio.to_thread(server.stop)
    assert [client.faults for client in clients] == [[]] * CLIENTS
    assert sum(it.failed for it in stats.numbers.values()) == 0
    assert all(len(client.seen) > 5 for client in clients)
    assert sum(len(client.waits) for client in clients) > 100
