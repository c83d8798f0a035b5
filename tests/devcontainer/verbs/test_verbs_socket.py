"""The verb socket: its owner is served, with every event once; nobody else, and no nonsense."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.errors import AgentError
from hyperbox_devcontainer.errors import (
    NoSessionError,
    SessionBusyError,
    SilentSessionError,
    VerbError,
)
from hyperbox_devcontainer.verbs import protocol
from hyperbox_devcontainer.verbs.client import Client
from hyperbox_devcontainer.verbs.ring import EventRing
from hyperbox_devcontainer.verbs.server import VerbServer

STARTING = {"name": "p", "path": "/p", "targets": []}


class PlayedSession:
    """Answers the verbs with what a test put in."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.release = asyncio.Event()
        self.error: Exception | None = None

    def status(self) -> dict[str, Any]:
        return {"name": "p", "path": "/p", "targets": [{"name": "process"}]}

    def config(self) -> dict[str, Any]:
        return {"app.port": 1}

    def history(self, limit: int) -> list[dict[str, Any]]:
        return [{"number": limit}]

    async def _do(self, verb: str, value: Any) -> dict[str, Any]:
        self.asked.append((verb, value))
        if self.error is not None:
            raise self.error
        return {"did": verb}

    async def flush(self, timeout: float) -> dict[str, Any]:
        if timeout == 0:
            await self.release.wait()
        return await self._do("flush", timeout)

    async def rollback(self, number: int | None) -> dict[str, Any]:
        return await self._do("rollback", number)

    async def restart(self, rung: str | None) -> dict[str, Any]:
        return await self._do("restart", rung)

    async def pause(self) -> dict[str, Any]:
        return await self._do("pause", None)

    async def resume(self) -> dict[str, Any]:
        return await self._do("resume", None)


@pytest.fixture
async def served(runtime_dir: str) -> AsyncIterator[tuple[VerbServer, PlayedSession]]:
    path = os.path.join(runtime_dir, f"{os.urandom(4).hex()}", "p.sock")
    server = VerbServer(path, STARTING, ring=EventRing(max_events=1000))
    await server.open()
    session = PlayedSession()
    server.attach(session)  # type: ignore[arg-type]
    yield server, session
    await server.close()


Served = tuple[VerbServer, PlayedSession]


async def blocking(work: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(work), 20)


def ask(path: str, verb: str, args: dict[str, Any] | None = None, timeout: float = 10.0) -> Any:
    with Client.connect(path) as client:
        return client.call(verb, args, timeout=timeout)


async def test_each_verb_reaches_the_session_and_its_answer_comes_back(served: Served) -> None:
    server, session = served
    for verb, args, value in (("flush", {"timeout": 3}, 3.0), ("rollback", {"number": 7}, 7),
                              ("rollback", {}, None), ("restart", {"rung": "cold"}, "cold"),
                              ("pause", {}, None), ("resume", {}, None)):
        assert await blocking(lambda v=verb, a=args: ask(server.path, v, a)) == {"did": verb}
        assert session.asked[-1] == (verb, value)
    assert (await blocking(lambda: ask(server.path, "status")))["targets"] == [{"name": "process"}]
    assert await blocking(lambda: ask(server.path, "history", {"limit": 5})) == [{"number": 5}]
    assert await blocking(lambda: ask(server.path, "config")) == {"app.port": 1}


@pytest.mark.parametrize("verb", ["status", "flush", "events", "exec", "stop"])
async def test_what_is_asked_about_another_project_reaches_nobody(served: Served,
                                                                  verb: str) -> None:
    server, session = served

    def about(project: str | None) -> None:
        with Client.connect(server.path, project=project) as client:
            client.call(verb, {"argv": ["true"], "timeout": 3}, timeout=10)

    with pytest.raises(VerbError, match=r"this session is of /p, not of /other"):
        await blocking(lambda: about("/other"))
    assert not session.asked
    assert not server.stop_asked.is_set()
    if verb in ("status", "flush"):
        await blocking(lambda: about("/p"))
        await blocking(lambda: about(None))


async def test_errors_arrive_with_their_fields(served: Served) -> None:
    server, session = served
    session.error = AgentError("it broke", file="a.py", line=3, key="k", hint="mend it")
    with pytest.raises(VerbError, match="it broke") as caught:
        await blocking(lambda: ask(server.path, "flush"))
    error = caught.value
    assert (error.kind, error.file, error.line, error.key, error.hint) == (
        "AgentError", "a.py", 3, "k", "mend it")
    session.error = ZeroDivisionError("x")
    with pytest.raises(VerbError, match="ZeroDivisionError: x"):
        await blocking(lambda: ask(server.path, "flush"))


@pytest.mark.parametrize(("verb", "args"), [
    ("nonsense", {}), (None, {}), (3, {}), ("rollback", {"number": "7"}),
    ("rollback", {"number": -1}), ("rollback", {"number": True}), ("flush", {"timeout": "long"}),
    ("flush", {"timeout": -1}), ("flush", {"timeout": 1e999}), ("restart", {"rung": 3}),
    ("history", {"limit": 0}), ("exec", {}), ("exec", {"argv": []}), ("exec", {"argv": [1]}),
    ("exec", {"argv": ["a"], "env": 3}), ("restart", {"rung": "lukewarm"}),
    ("restart", {"rung": ["cold"]}), ("events", {"words": 5}), ("events", {"of": [1]}),
])
async def test_wrong_requests_are_answered_and_reach_nobody(served: Served, verb: Any,
                                                            args: dict[str, Any]) -> None:
    server, session = served
    with pytest.raises(VerbError) as raised:
        await blocking(lambda: ask(server.path, verb, args))
    assert "a fault of ours" not in raised.value.message
    assert not session.asked


@pytest.mark.parametrize("number", ["a \"b\"", None, True, [1, {"x": "\u00e9"}], 1.5])
async def test_any_id_comes_back_as_it_was_sent(served: Served, number: Any) -> None:
    server, _ = served
    for count in range(1200):  # more than the ring keeps: some are lost
        server.publish({"event": "log", "text": str(count)})
    reader, writer = await asyncio.open_unix_connection(server.path)
    await reader.readline()
    writer.write(protocol.encode(protocol.hello()))
    writer.write(protocol.encode({"id": number, "verb": "events",
                                  "args": {"since": {"epoch": "other", "seq": 0}}}))
    seen = set()
    while not (answer := json.loads(await asyncio.wait_for(reader.readline(), 10))).get("done"):
        assert answer["id"] == number
        seen |= set(answer)
    assert {"lost", "event"} <= seen
    writer.write(protocol.encode({"id": number, "verb": "status", "args": [1]}))
    answer = json.loads(await asyncio.wait_for(reader.readline(), 10))
    assert (answer["id"], answer["error"]["key"]) == (number, "args")
    writer.close()


@pytest.mark.parametrize("nonsense", [
    b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff\n", b"[]\n", b'{"hyperbox":"other"}\n',
    b'{"hyperbox":"verbs","version":99}\n', b"{" * 100_000 + b"\n",
])
async def test_a_peer_that_is_not_ours_is_told_so_and_left(served: Served,
                                                           nonsense: bytes) -> None:
    server, _ = served
    reader, writer = await asyncio.open_unix_connection(server.path)
    await reader.readline()
    writer.write(nonsense)
    answer = json.loads(await asyncio.wait_for(reader.readline(), 10))
    assert answer["ok"] is False
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_line_without_end_is_refused_in_bounded_memory(served: Served) -> None:
    server, _ = served
    reader, writer = await asyncio.open_unix_connection(server.path)
    await reader.readline()
    writer.write(protocol.encode(protocol.hello()))
    with pytest.raises(ConnectionError):
        for _ in range(200):
            writer.write(b"x" * 100_000)
            await writer.drain()
    writer.close()
    assert await blocking(lambda: ask(server.path, "status"))


async def test_a_client_that_says_nothing_is_left(served: Served,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = served
    monkeypatch.setattr("hyperbox_devcontainer.verbs.server.HELLO_SECONDS", 0.05)
    reader, writer = await asyncio.open_unix_connection(server.path)
    await reader.readline()
    await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_the_socket_and_its_folder_are_the_owners_alone(served: Served) -> None:
    server, _ = served
    assert stat.S_IMODE(os.stat(server.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(server.path)).st_mode) == 0o700


async def test_another_users_process_is_refused(served: Served,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = served
    monkeypatch.setattr("hyperbox_devcontainer.verbs.server._peer_uid", lambda writer: 4242)
    with pytest.raises(VerbError, match="another user"):
        await blocking(lambda: ask(server.path, "status"))


async def test_a_second_session_of_the_project_is_refused_and_the_first_goes_on(
        served: Served) -> None:
    server, _ = served
    with pytest.raises(SessionBusyError) as caught:
        await VerbServer(server.path, STARTING).open()
    assert caught.value.pid == os.getpid()
    assert await blocking(lambda: ask(server.path, "status"))


async def test_a_socket_that_a_killed_session_left_is_replaced(runtime_dir: str) -> None:
    path = os.path.join(runtime_dir, os.urandom(4).hex(), "p.sock")
    os.mkdir(os.path.dirname(path), 0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(NoSessionError):
        await blocking(lambda: ask(path, "status"))
    server = VerbServer(path, STARTING)
    await server.open()
    assert await blocking(lambda: ask(path, "status")) == STARTING
    await server.close()
    assert not Path(path).exists()


async def test_verbs_wait_for_the_session_and_status_does_not(runtime_dir: str) -> None:
    server = VerbServer(os.path.join(runtime_dir, os.urandom(4).hex(), "p.sock"), STARTING)
    await server.open()
    waiting = asyncio.ensure_future(blocking(lambda: ask(server.path, "pause")))
    assert await blocking(lambda: ask(server.path, "status")) == STARTING
    assert not waiting.done()
    session = PlayedSession()
    server.attach(session)  # type: ignore[arg-type]
    assert await waiting == {"did": "pause"}
    await server.close()


async def test_verbs_that_waited_for_a_session_that_never_opened_are_answered(
        runtime_dir: str) -> None:
    server = VerbServer(os.path.join(runtime_dir, os.urandom(4).hex(), "p.sock"), STARTING)
    await server.open()
    waiting = asyncio.ensure_future(blocking(lambda: ask(server.path, "pause")))
    await blocking(lambda: ask(server.path, "status"))
    await server.close()
    with pytest.raises((VerbError, NoSessionError)):
        await waiting


async def test_stop_is_answered_when_everything_has_ended(served: Served) -> None:
    server, _ = served
    asking = asyncio.ensure_future(blocking(lambda: ask(server.path, "stop", {"fast": True})))
    await asyncio.wait_for(server.stop_asked.wait(), 10)
    assert server.fast
    assert not asking.done()
    server.ended()
    await server.close()
    assert await asking == {}


async def test_a_silent_session_is_told_within_the_limit(runtime_dir: str) -> None:
    path = os.path.join(runtime_dir, os.urandom(4).hex() + ".sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with pytest.raises(SilentSessionError) as caught:
            await blocking(lambda: Client.connect(path, timeout=0.1))
    assert caught.value.pid == os.getpid()


async def test_one_slow_verb_does_not_hold_up_another_on_the_same_connection(
        served: Served) -> None:
    server, session = served
    reader, writer = await asyncio.open_unix_connection(server.path)
    await reader.readline()
    for message in (protocol.hello(), {"id": 1, "verb": "flush", "args": {"timeout": 0}},
                    {"id": 2, "verb": "status"}):
        writer.write(protocol.encode(message))
    assert json.loads(await reader.readline())["id"] == 2
    session.release.set()
    assert json.loads(await reader.readline())["id"] == 1
    writer.close()


# Events


def follow(path: str, args: dict[str, Any], count: int) -> tuple[list[int], int, str]:
    """The sequence numbers of ``count`` events, what was lost, and the session's epoch."""
    numbers: list[int] = []
    lost = 0
    with Client.connect(path) as client:
        for message in client.stream("events", args, timeout=10):
            if "lost" in message:
                lost += message["lost"]
            else:
                numbers.append(message["seq"])
                assert message["event"]["n"] == message["seq"]
            if len(numbers) >= count:
                break
        return numbers, lost, client.epoch


def publish(server: VerbServer, *, upto: int, word: str = "log") -> None:
    for number in range(server.ring.last + 1, upto + 1):
        server.publish({"event": word, "n": number})


async def test_who_follows_gets_every_event_once(served: Served) -> None:
    server, _ = served
    publish(server, upto=5)
    since = {"epoch": server.greeting["epoch"], "seq": 2}
    following = asyncio.ensure_future(blocking(
        lambda: follow(server.path, {"since": since, "follow": True}, 13)))
    for upto in range(6, 16):
        await asyncio.sleep(0)
        publish(server, upto=upto)
    numbers, lost, _ = await following
    assert numbers == list(range(3, 16))
    assert not lost


async def test_without_follow_the_stream_ends(served: Served) -> None:
    server, _ = served
    publish(server, upto=5)
    numbers, _, _ = await blocking(lambda: follow(server.path, {"tail": 9}, 99))
    assert numbers == [1, 2, 3, 4, 5]


async def test_who_comes_back_misses_nothing_that_is_kept(served: Served) -> None:
    server, _ = served
    publish(server, upto=10)
    numbers, _, epoch = await blocking(lambda: follow(server.path, {"tail": 4}, 2))
    publish(server, upto=20)
    since = {"epoch": epoch, "seq": numbers[-1]}
    numbers, lost, _ = await blocking(lambda: follow(server.path, {"since": since}, 99))
    assert numbers == list(range(9, 21))
    assert not lost


async def test_who_comes_back_too_late_is_told_how_much_is_lost(served: Served) -> None:
    server, _ = served
    publish(server, upto=3000)
    since = {"epoch": server.greeting["epoch"], "seq": 10}
    numbers, lost, _ = await blocking(lambda: follow(server.path, {"since": since}, 9999))
    assert lost == 3000 - 1000 - 10
    assert numbers == list(range(2001, 3001))


async def test_a_position_of_another_session_begins_anew(served: Served) -> None:
    server, _ = served
    publish(server, upto=5)
    since = {"epoch": "another", "seq": 4}
    numbers, _, _ = await blocking(lambda: follow(server.path, {"since": since}, 99))
    assert numbers == [1, 2, 3, 4, 5]


async def test_a_client_that_does_not_read_costs_the_session_nothing(served: Served) -> None:
    server, _ = served
    reader, writer = await asyncio.open_unix_connection(server.path, limit=2**16)
    await reader.readline()
    writer.write(protocol.encode(protocol.hello()))
    writer.write(protocol.encode({"id": 1, "verb": "events", "args": {"tail": 0, "follow": True}}))
    await asyncio.wait_for(reader.readline(), 10)
    for number in range(20_000):
        server.publish({"event": "log", "n": number + 1, "text": "x" * 200})
        if not number % 1000:
            await asyncio.sleep(0)
    assert await blocking(lambda: ask(server.path, "status"))
    seen = lost = 0
    while seen + lost < 20_000:
        message = json.loads(await asyncio.wait_for(reader.readline(), 10))
        lost += message.get("lost", 0)
        seen += "event" in message
    assert seen + lost == 20_000
    assert lost
    writer.close()
