"""Lives and deaths: of the agent, of the holder, of the instances it keeps; and nothing left."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

import hyperbox_agent
from hyperbox_agent.clock import SystemClock
from hyperbox_agent.errors import PortError, PortTakenError
from hyperbox_agent.supervise import port_process
from hyperbox_agent.supervise.holder_control import Control
from hyperbox_agent.supervise.holder_escrow import LOG_LIMIT, OrphanLog, start_time
from hyperbox_agent.supervise.port import Port
from hyperbox_agent.supervise.port_listen import find_owner

SOURCE = str(Path(hyperbox_agent.__file__).parent.parent)
PROGRAM = """
    import http.server, sys, threading, time
    class H(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            body = b"from the program"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_):
            print("served", "x" * 2000, flush=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""
AGENT = """
    import asyncio, json, os, subprocess, sys, time
    sys.path.insert(0, {source!r})
    from hyperbox_agent.clock import SystemClock
    from hyperbox_agent.supervise.port import Port
    async def main():
        program = subprocess.Popen([sys.executable, "-c", {program!r}], stdout=subprocess.PIPE,
                                   start_new_session=True)
        address = ("127.0.0.1", int(program.stdout.readline()))
        port = await Port.open("127.0.0.1", 0, {run_dir!r}, clock=SystemClock(),
                               keep_for={keep_for})
        await port.switch(7, address)
        await port.keep(7, program.pid, [program.stdout.fileno()], {{"root": "/p", "n": 1}})
        print(json.dumps([port.address, program.pid, port.holder_pid]), flush=True)
        await asyncio.sleep(60)
    asyncio.run(main())
"""


class Orphan:
    """An agent that was killed, and what it left."""

    def __init__(self, run_dir: str, keep_for: float = 3600.0) -> None:
        script = textwrap.dedent(AGENT).format(
            source=SOURCE, program=textwrap.dedent(PROGRAM), run_dir=run_dir, keep_for=keep_for)
        self.agent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert self.agent.stdout is not None
        address, self.program, self.holder = json.loads(self.agent.stdout.readline())
        self.address = (address[0], address[1])
        self.started = start_time(self.program)
        self.agent.kill()
        self.agent.wait()
        self.agent.stdout.close()

    def get(self, path: str = "/") -> bytes:
        return fetch(self.address, path)

    def program_alive(self) -> bool:
        return start_time(self.program) == self.started

    def end(self) -> None:
        for pid in (self.program, self.holder):
            if start_time(pid) is not None:
                os.kill(pid, signal.SIGKILL)


def fetch(address: tuple[str, int], path: str = "/") -> bytes:
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.fixture
def orphan(run_dir: str):
    made = Orphan(run_dir)
    yield made
    made.end()


async def test_the_program_goes_on_serving_when_the_agent_is_killed_and_is_adopted(
    orphan, run_dir, tools,
) -> None:
    # More than a pipe holds: unread output would stop the program.
    for _ in range(60):
        assert await asyncio.to_thread(orphan.get) == b"from the program"
    log = Path(run_dir, "orphan-7.log")
    await tools.until(lambda: log.stat().st_size > 60 * 2000)

    port = await Port.open("127.0.0.1", orphan.address[1], run_dir, clock=SystemClock())
    try:
        assert port.address == orphan.address
        assert port.holder_pid == orphan.holder
        kept = port.adopted
        assert kept is not None
        assert kept.number == 7
        assert kept.orphaned_s > 0
        instance = kept.instances[0]
        assert (instance.number, instance.pid, instance.alive) == (7, orphan.program, True)
        assert instance.info == {"root": "/p", "n": 1}
        assert instance.log == str(log)
        size = log.stat().st_size
        assert await asyncio.to_thread(orphan.get) == b"from the program"
        with os.fdopen(instance.fds[0], "rb") as output:
            os.set_blocking(output.fileno(), True)
            assert (await asyncio.to_thread(output.readline)).startswith(b"served")
        assert log.stat().st_size == size
        await port.switch(8, (await tools.backend("new")).address)
        assert (await tools.ask(await tools.connect(port))).startswith(b"new")
    finally:
        await port.close()
    assert start_time(orphan.holder) is None


async def test_an_adopted_holder_can_take_another_port(orphan, run_dir) -> None:
    spare = socket.socket()  # bound only, so that no other test gets the number
    spare.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    spare.bind(("127.0.0.1", 0))
    wanted = spare.getsockname()[1]
    port = await Port.open("127.0.0.1", wanted, run_dir, clock=SystemClock())
    try:
        assert port.holder_pid == orphan.holder
        assert port.address[1] == wanted
        assert await asyncio.to_thread(fetch, port.address) == b"from the program"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(orphan.get)
    finally:
        spare.close()
        await port.close()
        for instance in port.adopted.instances:
            for fd in instance.fds:
                os.close(fd)


async def test_nobody_comes_and_the_holder_ends_the_program_and_itself(run_dir, tools) -> None:
    orphan = Orphan(run_dir, keep_for=0.3)
    try:
        await tools.until(lambda: not orphan.program_alive())
        await tools.until(lambda: start_time(orphan.holder) is None)
        assert os.listdir(run_dir) == ["holder.log"]
    finally:
        orphan.end()


async def test_a_second_agent_is_refused_while_the_first_lives(port, run_dir) -> None:
    with pytest.raises(PortError, match="another agent"):
        await Port.open("127.0.0.1", 0, run_dir, clock=SystemClock())
    assert (await port.stats()).connections == 0


async def test_a_killed_holder_is_replaced_with_the_same_socket(run_dir, tools) -> None:
    port = await Port.open("127.0.0.1", 0, run_dir, clock=SystemClock())
    reading, writing = os.pipe()
    try:
        await port.switch(3, (await tools.backend("a")).address)
        await port.keep(3, os.getpid(), [reading], {"some": "thing"})
        await port.hold(0)
        address, first = port.address, port.holder_pid
        os.kill(first, signal.SIGSTOP)
        # These wait in the queue of the socket while nobody accepts.
        calls = [await asyncio.open_connection(*address) for _ in range(5)]
        for _reader, writer in calls:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
        os.kill(first, signal.SIGKILL)

        async def all_wait() -> bool:
            return (await port.stats()).waiting == 5

        await tools.until(all_wait)  # the hold holds on
        assert port.holder_pid != first
        await port.release()
        for reader, writer in calls:
            assert (await tools.read_response(reader)).startswith(b"a")
            writer.close()
        assert port.address == address
        reply, fds = await port._ask("fetch", {"number": 3})
        assert reply["info"] == {"some": "thing"}
        assert os.path.samestat(os.fstat(fds[0]), os.fstat(reading))
        os.close(fds[0])
    finally:
        await port.close()
        os.close(reading)
        os.close(writing)


async def test_a_holder_that_dies_again_and_again_is_replaced_all_the_same(port, tools) -> None:
    await port.switch(1, (await tools.backend("a")).address)
    for _ in range(8):
        await port.stats()
        os.kill(port.holder_pid, signal.SIGKILL)
    assert (await tools.ask(await tools.connect(port))).startswith(b"a")


async def test_a_holder_that_can_not_live_is_an_error_until_it_can(
        port, tools, monkeypatch) -> None:
    address = (await tools.backend("a")).address
    await port.switch(1, address)
    port._timeout = 0.3
    with monkeypatch.context() as patch:
        patch.setattr(port_process, "_BOOTSTRAP", "")
        os.kill(port.holder_pid, signal.SIGKILL)
        with pytest.raises(PortError):
            await port.switch(2, ("127.0.0.1", 1))
        await port.release()
        await port.forget(1)
    port._timeout = 30.0
    assert (await tools.ask(await tools.connect(port))).startswith(b"a")
    assert (await port.stats()).live == 1


async def test_the_terminal_cannot_end_the_holder(port, tools) -> None:
    await port.switch(1, (await tools.backend("a")).address)
    assert os.getsid(port.holder_pid) == port.holder_pid
    os.kill(port.holder_pid, signal.SIGINT)
    os.kill(port.holder_pid, signal.SIGHUP)
    assert (await tools.ask(await tools.connect(port))).startswith(b"a")


async def test_a_taken_port_names_its_owner(run_dir) -> None:
    script = Path(run_dir, "other.py")
    script.write_text("import socket; s = socket.create_server(('', 0));"
                      "print(s.getsockname()[1], flush=True); s.accept()")
    other = subprocess.Popen([sys.executable, str(script), "its", "arguments"],
                             stdout=subprocess.PIPE)
    assert other.stdout is not None
    number = int(other.stdout.readline())
    try:
        with pytest.raises(PortTakenError) as caught:
            await Port.open("127.0.0.1", number, run_dir, clock=SystemClock())
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    error = caught.value
    assert error.pid == other.pid
    assert error.program is not None
    assert error.program.endswith("other.py its arguments")
    assert str(other.pid) in error.message
    assert error.hint is not None
    assert f"kill {other.pid}" in error.hint
    assert os.listdir(run_dir) == ["other.py"]


async def test_a_port_taken_on_the_other_loopback_is_taken(run_dir) -> None:
    # A number that is free on the other side: connections of other tests linger on some.
    with socket.create_server(("127.0.0.1", 0)) as spare:
        number = spare.getsockname()[1]
        try:
            other = socket.create_server(("::1", number), family=socket.AF_INET6)
        except OSError:
            pytest.skip("no IPv6 loopback")
    with other, pytest.raises(PortTakenError, match="::1") as caught:
        await Port.open("localhost", number, run_dir, clock=SystemClock())
    assert caught.value.pid == os.getpid()


async def test_localhost_is_both_loopbacks(run_dir, tools) -> None:
    port = await Port.open("localhost", 0, run_dir, clock=SystemClock())
    try:
        await port.switch(1, (await tools.backend("a")).address)
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, port.address[1])
            assert (await tools.ask((reader, writer))).startswith(b"a")
            writer.close()
    finally:
        await port.close()


def test_a_free_port_has_no_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number = probe.getsockname()[1]
        owner = find_owner("127.0.0.1", number)
        assert owner is not None
        assert owner.pid == os.getpid()
        assert find_owner("::1", number) is None
    assert find_owner("127.0.0.1", number) is None


@pytest.mark.parametrize(("host", "number"), [("no.such.host.invalid", 0), ("192.0.2.1", 0),
                                              ("127.0.0.1", 70000)])
async def test_a_bad_address_is_a_port_error(run_dir, host: str, number: int) -> None:
    with pytest.raises(PortError):
        await Port.open(host, number, run_dir, clock=SystemClock())


async def test_the_holder_is_small_and_without_asyncio(port) -> None:
    status = Path(f"/proc/{port.holder_pid}/status").read_text()
    assert int(status.partition("VmRSS:")[2].split()[0]) < 20_000
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import hyperbox_agent.supervise.holder;"
            "print(*sorted(sys.modules))")
    out = subprocess.run([sys.executable, "-I", "-S", "-c", code, SOURCE], check=True,
                         capture_output=True, text=True).stdout.split()
    heavy = {"asyncio", "subprocess", "logging", "threading", "dataclasses", "inspect", "typing",
             "ssl", "hashlib", "pathlib", "traceback"}
    assert heavy & set(out) <= {"typing"}


async def test_it_works_from_a_pyz(run_dir, tools, tmp_path, monkeypatch) -> None:
    archive = tmp_path / "agent.pyz"
    with zipfile.ZipFile(archive, "w") as made:
        for file in Path(SOURCE, "hyperbox_agent").rglob("*.py"):
            made.write(file, file.relative_to(SOURCE))
    monkeypatch.setattr(port_process, "code_path", lambda: str(archive))
    port = await Port.open("127.0.0.1", 0, run_dir, clock=SystemClock())
    try:
        archive.unlink()  # replaced by a newer one while the holder lives
        await port.switch(1, (await tools.backend("a")).address)
        assert (await tools.ask(await tools.connect(port))).startswith(b"a")
    finally:
        await port.close()


async def test_without_descriptors_it_waits_and_does_not_spin(port, tools) -> None:
    await port.switch(1, (await tools.backend("a")).address)
    resource.prlimit(port.holder_pid, resource.RLIMIT_NOFILE, (24, 24))
    clients = [await tools.connect(port) for _ in range(40)]
    before = cpu_seconds(port.holder_pid)
    begin = time.monotonic()
    await asyncio.sleep(0.5)
    assert cpu_seconds(port.holder_pid) - before < 0.25 * (time.monotonic() - begin)
    for _reader, writer in clients[:35]:
        writer.close()
    for streams in clients[35:]:
        assert (await tools.ask(streams)).startswith(b"a")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_message_that_is_none_is_refused_and_the_holder_goes_on(port) -> None:
    for op, body in (("nonsense", {}), ("switch", {"number": "x", "backend": None}),
                     ("drain", {}), ("fetch", {"number": 99})):
        with pytest.raises(PortError, match="refused"):
            await port._ask(op, body)
    assert (await port.stats()).live is None


async def test_close_is_harmless_twice_and_ends_calls(port, tools) -> None:
    reader, _writer = await tools.connect(port)

    async def accepted() -> bool:
        return (await port.stats()).connections == 1

    await tools.until(accepted)
    await port.close()
    await port.close()
    assert await reader.read() == b""
    with pytest.raises(PortError, match="closed"):
        await port.stats()


def test_an_orphans_log_is_bounded(tmp_path) -> None:
    log = OrphanLog(str(tmp_path / "orphan-1.log"))
    for _ in range(3 * LOG_LIMIT // 65536):
        log.write(bytes(65536))
    log.close()
    sizes = {it.name: it.stat().st_size for it in tmp_path.iterdir()}
    assert set(sizes) == {"orphan-1.log", "orphan-1.log.1"}
    assert max(sizes.values()) <= LOG_LIMIT


def test_every_operation_of_the_holder_is_named() -> None:
    found = {name[4:] for name in dir(Control) if name.startswith("_op_")}
    assert found == {"hello", "listen", "switch", "drain", "hold", "release", "keep", "forget",
                     "fetch", "stats", "close"}


async def test_a_holder_that_hangs_is_replaced(run_dir, tools) -> None:
    port = await Port.open("127.0.0.1", 0, run_dir, clock=SystemClock(), timeout=3.0)
    try:
        await port.switch(1, (await tools.backend("a")).address)
        first = port.holder_pid
        os.kill(first, signal.SIGSTOP)
        assert (await port.stats()).live == 1
        assert port.holder_pid != first
        assert (await tools.ask(await tools.connect(port))).startswith(b"a")
    finally:
        await port.close()


def test_only_the_owner_reaches_the_holder(run_dir) -> None:
    async def modes() -> list[int]:
        port = await Port.open("127.0.0.1", 0, run_dir, clock=SystemClock())
        try:
            return [stat.S_IMODE(Path(run_dir, name).stat().st_mode)
                    for name in ("port.sock", "peers")]
        finally:
            await port.close()

    assert asyncio.run(modes()) == [0o600, 0o600]
