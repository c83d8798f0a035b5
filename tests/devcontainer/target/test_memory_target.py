from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core import delta
from hyperbox_agent.core.bundle import pack_blobs
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.generation import Outcome, Verdict
from hyperbox_agent.errors import (
    AgentError,
    ApplyError,
    BaseChangedError,
    LinkLostError,
    MissingBlobsError,
    ProtocolError,
    StoreError,
)
from hyperbox_agent.link.connection import Link, Request
from hyperbox_agent.link.messages import (
    Configure,
    Configured,
    GenerationRequest,
    Wanted,
    unpack_manifest,
)
from hyperbox_agent.link.stream import ByteStream, connect_tcp
from hyperbox_devcontainer.errors import TargetError, TargetTimeoutError
from hyperbox_devcontainer.target.landing import start_agent
from hyperbox_devcontainer.target.memory import Call, MemoryTarget
from hyperbox_devcontainer.target.memory_agent import MemoryAgent

TIME = 20.0


async def echo(call: Call, stream: ByteStream) -> None:
    while data := await stream.read():
        await stream.write(data)


@pytest.fixture
async def target() -> AsyncIterator[MemoryTarget]:
    made = MemoryTarget("mem", programs={"echo": echo})
    yield made
    await made.close()


async def test_calls_fail_as_told_one_by_one(target: MemoryTarget) -> None:
    target.fail_next("no route", "no route")
    with pytest.raises(TargetError, match="mem: echo: no route"):
        await target.run(("echo",), timeout=TIME)
    with pytest.raises(TargetError, match="writing /a: no route"):
        await target.put("/a", b"", timeout=TIME)
    assert (await target.run(("echo",), input=b"x", timeout=TIME)).out == b"x"


async def test_a_stalled_target_runs_into_time_limits_and_goes_on(target: MemoryTarget) -> None:
    stream = await target.open(("echo",), timeout=TIME)
    await stream.write(b"x")
    target.stall()
    with pytest.raises(TargetTimeoutError):
        await target.open(("echo",), timeout=0.05)
    reading = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0.02)
    assert not reading.done()
    target.go_on()
    assert await asyncio.wait_for(reading, TIME) == b"x"


async def test_a_vanished_target_breaks_streams_and_calls(target: MemoryTarget) -> None:
    stream = await target.open(("echo",), timeout=TIME)
    await target.put("/a/b", b"1", timeout=TIME)
    target.vanish("the container was removed")
    with pytest.raises(LinkLostError):
        await stream.read()
    with pytest.raises(TargetError, match="the container was removed"):
        await target.run(("echo",), timeout=TIME)
    target.recreate()
    assert target.files == {}
    assert (await target.run(("echo",), input=b"x", timeout=TIME)).out == b"x"


async def test_a_program_that_raises_is_a_result(target: MemoryTarget) -> None:
    async def fail(call: Call, stream: ByteStream) -> None:
        raise ValueError("oh")

    target.programs["fail"] = fail
    ran = await target.run(("fail",), timeout=TIME)
    assert (ran.status, ran.err) == (70, b"ValueError: oh\n")


async def test_a_forward_to_nothing_is_closed_at_once(target: MemoryTarget) -> None:
    forward = await target.forward(80, timeout=TIME)
    stream = await connect_tcp(*forward.address)
    assert await asyncio.wait_for(stream.read(), TIME) == b""
    await stream.close()


# -- the agent in memory ----------------------------------------------------------------------


@pytest.fixture
def agent(target: MemoryTarget) -> MemoryAgent:
    made = MemoryAgent()
    target.programs["hyperbox-agent"] = made.program
    return made


async def connect(target: MemoryTarget) -> Link:
    return await start_agent(target, ("hyperbox-agent", "serve"), clock=SystemClock(),
                             timeout=TIME)


async def configure(link: Link, session: str = "s1") -> Configured:
    asked = Configure(session, "p", "mirror", "/srv/p", {})
    return Configured.from_json((await link.call("configure", asked.as_json(), timeout=TIME)).body)


def entry(path: str, content: bytes) -> Entry:
    return Entry(path, Kind.FILE, 0o644, len(content), hashlib.sha256(content).digest())


async def save(link: Link, number: int, files: dict[str, bytes | None], *,
               base: int | None = None, settled: bool = True,
               records: dict[str, bytes] | None = None) -> Outcome:
    """``base``: what the target holds, where that is not the number before."""
    wanted = tuple(Wanted(path, None if content is None else entry(path, content))
                   for path, content in files.items())
    body, head = GenerationRequest(number, number - 1 if base is None else base, wanted,
                                   settled=settled).pack()
    blobs = [(hashlib.sha256(content).digest(),
              (records or {}).get(path) or delta.encode(content))
             for path, content in files.items() if content is not None]
    answer = await link.call("generation", body, head + b"".join(pack_blobs(blobs)), timeout=TIME)
    return Outcome.from_json(answer.body)


async def test_a_generation_is_taken_and_gone_back_from(target: MemoryTarget,
                                                       agent: MemoryAgent) -> None:
    link = await connect(target)
    assert (await configure(link)).state == "new"
    assert (await save(link, 1, {"a.py": b"one", "b.py": b"b"})).verdict is Verdict.COMMITTED
    one = delta.encode(b"one!", b"one", hashlib.sha256(b"one").digest())
    await save(link, 2, {"a.py": b"one!", "b.py": None}, records={"a.py": one})
    assert agent.content("a.py") == b"one!"
    assert set(agent.tree) == {"a.py"}
    answer = await link.call("manifest", timeout=TIME)
    assert unpack_manifest(await answer.payload.read()) == agent.tree
    rolled = await link.call("rollback", {"number": 3, "to": 1}, timeout=TIME)
    assert Outcome.from_json(rolled.body).serving == 3
    assert set(agent.tree) == {"a.py", "b.py"}
    with pytest.raises(ApplyError, match="generation 9 is not kept") as caught:
        await link.call("rollback", {"number": 4, "to": 9}, timeout=TIME)
    assert "1, 2, 3" in (caught.value.hint or "")
    await link.close()


async def test_an_unsettled_generation_waits_for_a_word(target: MemoryTarget,
                                                       agent: MemoryAgent) -> None:
    link = await connect(target)
    await configure(link)
    first = asyncio.ensure_future(save(link, 1, {"a": b"1"}, settled=False))
    await link.ping(TIME)
    assert not first.done()
    await link.call("supersede", {"number": 1, "by": 2}, timeout=TIME)
    assert (await first).verdict is Verdict.SUPERSEDED
    second = asyncio.ensure_future(save(link, 2, {"a": b"2"}, base=0, settled=False))
    await link.ping(TIME)
    await link.call("settle", {"number": 2}, timeout=TIME)
    assert (await second).verdict is Verdict.COMMITTED
    await link.close()


async def test_a_batch_against_something_else_than_is_held_is_refused(
        target: MemoryTarget, agent: MemoryAgent) -> None:
    link = await connect(target)
    await configure(link)
    await save(link, 1, {"a": b"1"})
    lost = await save(link, 2, {"a": b"2"})  # whose answer never came
    assert lost.verdict is Verdict.COMMITTED
    with pytest.raises(BaseChangedError, match="holds #2, not #1") as caught:
        await save(link, 3, {"a": b"3"}, base=1)
    assert (caught.value.base, caught.value.holds) == (1, 2)
    assert (agent.number, agent.content("a")) == (2, b"2")
    await link.close()


async def test_what_is_wrong_with_a_generation_changes_nothing(target: MemoryTarget,
                                                              agent: MemoryAgent) -> None:
    link = await connect(target)
    await configure(link)
    await save(link, 1, {"a": b"1"})
    with pytest.raises(StoreError, match="not what its digest"):
        await save(link, 2, {"a": b"2"}, records={"a": delta.encode(b"other")})
    with pytest.raises(MissingBlobsError) as caught:
        await save(link, 2, {"a": b"base+"}, records={"a": delta.encode(
            b"base+" * 99, b"base" * 99, hashlib.sha256(b"base" * 99).digest())})
    assert caught.value.digests == (hashlib.sha256(b"base" * 99).digest(),)
    with pytest.raises(ProtocolError, match="refused"):
        await save(link, 2, {"../a": b"2"})
    with pytest.raises(ApplyError):
        await save(link, 2, {"a/below": b"2"})
    agent.judge = lambda tree: "SyntaxError"
    assert (await save(link, 2, {"a": b"2"})).verdict is Verdict.ROLLED_BACK
    assert agent.content("a") == b"1"
    assert agent.number == 1
    await link.close()


async def test_a_place_is_known_new_or_recreated(target: MemoryTarget, agent: MemoryAgent) -> None:
    async def state(session: str = "s1") -> str:
        link = await connect(target)
        try:
            return (await configure(link, session)).state
        finally:
            await link.close()

    assert await state() == "new"
    link = await connect(target)
    await configure(link)
    await save(link, 1, {"a": b"1"})
    await link.close()
    assert await state() == "known"
    agent.wipe()
    assert await state() == "recreated"
    agent.recreate({"other.txt": b"from the image"})
    assert await state() == "recreated"
    agent.recreate()
    assert await state() == "new"
    assert await state("another") == "recreated"


async def test_it_lies_as_told(target: MemoryTarget, agent: MemoryAgent) -> None:
    link = await connect(target)
    for path in ("../evil", "/etc/evil", "a/../../evil"):
        agent.lie([entry(path, b"x")])
        answer = await link.call("manifest", timeout=TIME)
        with pytest.raises(ProtocolError) as caught:
            unpack_manifest(await answer.payload.read())
        assert caught.value.file == path

    async def refuse(request: Request) -> None:
        raise AgentError("not today")

    agent.answer("status", refuse)
    with pytest.raises(AgentError, match="not today"):
        await link.call("status", timeout=TIME)
    assert agent.asked == ["manifest"] * 3 + ["status"]
    await link.close()


async def test_a_newer_link_takes_over_and_stop_ends_the_agent(target: MemoryTarget,
                                                              agent: MemoryAgent) -> None:
    first, second = await connect(target), await connect(target)
    assert "took over" in (await asyncio.wait_for(first.closed, TIME)).message
    got: list[object] = []
    second.on_notice("events", got.append)
    await agent.tell("events", {"events": [1]})
    await second.ping(TIME)
    assert got == [{"events": [1]}]
    await second.call("stop", timeout=TIME)
    assert "the agent ends" in (await asyncio.wait_for(second.closed, TIME)).message
    assert agent.stopped


def test_changes_are_values() -> None:
    assert GenerationRequest.of(1, 0, [Change("a", None, entry("a", b""))]).changes[0].path == "a"
