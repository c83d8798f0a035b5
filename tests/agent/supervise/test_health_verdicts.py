from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.supervise.backoff import Backoff
from hyperbox_agent.supervise.blame import Blame, python_error
from hyperbox_agent.supervise.health import Rules, check, exit_words, judge
from hyperbox_agent.supervise.probe import Answer, NoAnswerError, get, is_complete, status_of
from hyperbox_agent.supervise.process import Exit

# --------------------------------------------------------------------------------------- blame

TRACE = """\
noise
Traceback (most recent call last):
  File "/p/app.py", line 3, in <module>
    import ver
  File "/p/ver.py", line 7, in <module>
    boom()
  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode
    raise JSONDecodeError("x")
  File "/p/.venv/lib/python3.11/site-packages/x.py", line 1, in f
    x
json.decoder.JSONDecodeError: Expecting value: line 1
after""".splitlines()


def test_the_last_frame_of_the_project_is_blamed() -> None:
    assert python_error(TRACE, "/p") == Blame(
        "json.decoder.JSONDecodeError: Expecting value: line 1", "ver.py", 7)


def test_the_last_of_several_tracebacks_counts() -> None:
    chained = [*TRACE, "", "During handling of the above exception, another exception occurred:",
               "", "Traceback (most recent call last):",
               '  File "/p/sub/late.py", line 2, in f', "    raise ValueError", "ValueError"]
    assert python_error(chained, "/p") == Blame("ValueError", "sub/late.py", 2)


@pytest.mark.parametrize(("lines", "expected"), [
    ([], None),
    (["Error: no such option"], None),
    (['  File "/p/ver.py", line 1', "    def x(:", "          ^",
      "SyntaxError: invalid syntax"], Blame("SyntaxError: invalid syntax", "ver.py", 1)),
    (["Traceback (most recent call last):", '  File "/q/x.py", line 1, in <module>',
      "KeyError: 'a'"], Blame("KeyError: 'a'")),
    (["Traceback (most recent call last):", '  File "<string>", line 1, in <module>',
      "KeyError: 'a'"], Blame("KeyError: 'a'")),
    (["Traceback (most recent call last):", '  File "/p/x.py", line 1, in <module>'], None),
])
def test_blame_of_other_shapes(lines: list[str], expected: Blame | None) -> None:
    assert python_error(lines, "/p") == expected


# --------------------------------------------------------------------------------------- probe


class Server:
    """Answers on a loopback port; ``close`` ends the handlers too."""

    def __init__(self, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> None:
        self._answer = answer
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> Server:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.address = self._server.sockets[0].getsockname()
        return self

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await self._answer(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def serve(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> Server:
    return await Server(answer).open()


async def probe(data: bytes) -> Answer:
    async def answer(_: Any, writer: asyncio.StreamWriter) -> None:
        for byte in range(len(data)):
            writer.write(data[byte:byte + 1])
            if byte % 7 == 0:
                await asyncio.sleep(0)
        await writer.drain()

    server = await serve(answer)
    try:
        return await get(server.address, "/h", "x", SystemClock())
    finally:
        await server.close()


@pytest.mark.parametrize(("data", "status"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
    (b"HTTP/1.0 404 Not Found\r\n\r\nno length", 404),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    (b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 500),
    (b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n", 301),
    (b"\x15\x03\x01\x00\x02\x02\x46", None),
    (b"220 mail.example.org ESMTP\r\n", None),
])
async def test_an_answer_is_read_whole_however_it_is_cut(data: bytes, status: int | None) -> None:
    assert (await probe(data)).status == status


@pytest.mark.parametrize("data", [
    b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"])
async def test_half_an_answer_is_none(data: bytes) -> None:
    with pytest.raises((NoAnswerError, ConnectionError)):
        await probe(data)


async def test_an_endless_answer_that_begins_well_is_one(fake_clock: Any) -> None:
    async def answer(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await asyncio.Event().wait()

    server = await serve(answer)
    asked = asyncio.ensure_future(
        get(server.address, "/", "x", fake_clock))
    while not asked.done():
        await fake_clock.advance(0.3)
        await asyncio.sleep(0.005)
    assert asked.result().status == 200
    await server.close()


def test_completeness_is_seen_from_the_bytes() -> None:
    assert not is_complete(b"HTTP/1.1 200 OK\r\n\r\nmore may come")
    assert status_of(b"HTTP/1.1 2xx\r\n\r\n") is None


# -------------------------------------------------------------------------------------- health


@pytest.mark.parametrize(("status", "health", "baseline", "wrong"), [
    (200, None, None, None), (404, None, None, None), (500, None, None, "HTTP 500"),
    (500, None, 200, "HTTP 500"), (500, None, 502, None), (None, None, None, None),
    (200, "/h", None, None), (302, "/h", None, None), (404, "/h", None, "HTTP 404"),
    (503, "/h", 503, "HTTP 503"), (None, "/h", None, "its answer was not HTTP"),
])
def test_what_is_a_good_answer(status: int | None, health: str | None, baseline: int | None,
                               wrong: str | None) -> None:
    assert judge(Answer(status), health, baseline) == wrong


def test_a_kill_is_explained() -> None:
    assert exit_words(Exit(signal=9), None, None) == "killed by SIGKILL (out of memory?)"
    assert exit_words(Exit(signal=9), 3, 4).endswith("the memory limit of its cgroup was reached")
    assert exit_words(Exit(status=3), 3, 4) == "exit status 3"
    assert exit_words(Exit(signal=11), None, None) == "killed by SIGSEGV"


class Subject:
    """A starting instance that the test plays."""

    root = "/p"
    oom_before = None

    def __init__(self, *errors: str) -> None:
        loop = asyncio.get_running_loop()
        self.backend: asyncio.Future[tuple[str, int]] = loop.create_future()
        self.ready_line: asyncio.Future[str] = loop.create_future()
        self.exit: asyncio.Future[Exit] = loop.create_future()
        self.errors = errors

    async def ended(self) -> Exit:
        return await asyncio.shield(self.exit)

    def last_errors(self) -> tuple[str, ...]:
        return self.errors


async def verdict_of(subject: Subject, rules: Rules, clock: Any, seconds: float) -> Any:
    task = asyncio.ensure_future(check(subject, rules, clock))
    passed = 0.0
    while passed < seconds and not task.done():
        await clock.advance(0.05)
        passed += 0.05
        await asyncio.sleep(0.001)
    assert task.done(), "no verdict in time"
    return task.result()


async def test_without_a_port_being_alive_for_a_while_is_health(fake_clock: Any) -> None:
    assert (await verdict_of(Subject(), Rules(None, ready_after=1.0), fake_clock, 1.2)
            ).failure is None
    subject = Subject("bad luck")
    subject.exit.set_result(Exit(status=0))
    verdict = await verdict_of(subject, Rules(None), fake_clock, 0.2)
    assert verdict.failure.message == "exit status 0; last words: bad luck"


async def test_a_ready_line_is_health_and_its_absence_is_said(fake_clock: Any) -> None:
    subject = Subject()
    subject.ready_line.set_result("up")
    rules = Rules(None, has_ready=True, start_timeout=5)
    assert (await verdict_of(subject, rules, fake_clock, 0.2)).failure is None
    verdict = await verdict_of(Subject(), rules, fake_clock, 6)
    assert verdict.failure.message == "no line of its output matched [reload] ready in 5 s"


async def test_never_listening_never_answering_and_refusing_are_told_apart(
        fake_clock: Any, helpers: Any) -> None:
    rules = Rules(8000, start_timeout=3)
    verdict = await verdict_of(Subject(), rules, fake_clock, 4)
    assert verdict.failure.message == "it did not listen on port 8000 in 3 s"
    assert verdict.failure.hint.startswith("if it listens on another port by now: hyperbox down")
    subject = Subject()
    subject.backend.set_result(("127.0.0.1", helpers.free_port()))
    verdict = await verdict_of(subject, rules, fake_clock, 4)
    assert verdict.failure.message == "connection refused in 3 s"

    async def silent(_: Any, writer: Any) -> None:
        await asyncio.Event().wait()

    server = await serve(silent)
    subject = Subject()
    subject.backend.set_result(server.address)
    verdict = await verdict_of(subject, rules, fake_clock, 4)
    assert verdict.failure.message == "no answer in 3 s"
    await server.close()


async def test_an_end_while_it_is_asked_comes_with_the_line_to_blame(fake_clock: Any) -> None:
    subject = Subject(*TRACE)
    subject.exit.set_result(Exit(status=1))
    verdict = await verdict_of(subject, Rules(8000), fake_clock, 1)
    assert (verdict.failure.path, verdict.failure.line) == ("ver.py", 7)
    assert verdict.failure.message == (
        "json.decoder.JSONDecodeError: Expecting value: line 1 (exit status 1)")
    subject = Subject("OSError: [Errno 98] Address already in use")
    subject.exit.set_result(Exit(signal=signal.SIGABRT))
    verdict = await verdict_of(subject, Rules(8000), fake_clock, 1)
    assert "$PORT" in verdict.failure.hint
    assert verdict.signal == signal.SIGABRT


async def test_a_bad_answer_is_asked_for_once_more_and_not_ready_yet_for_longer(
        fake_clock: Any) -> None:
    answers = [b"500 Oops", b"500 Oops"]

    async def answer(_: Any, writer: asyncio.StreamWriter) -> None:
        status = answers.pop(0) if answers else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    server = await serve(answer)
    address = server.address
    subject = Subject(*TRACE)
    subject.backend.set_result(address)
    verdict = await verdict_of(subject, Rules(8000, "/up"), fake_clock, 3)
    assert verdict.failure.message.endswith("(HTTP 500 at /up)")
    assert verdict.failure.path == "ver.py"
    answers[:] = [b"500 Oops"] + [b"503 Later"] * 10
    verdict = await verdict_of(subject, Rules(8000, "/up"), fake_clock, 3)
    assert (verdict.failure, verdict.status) == (None, 200)
    await server.close()


def test_pauses_grow_to_half_a_minute_and_start_again_after_a_calm_life() -> None:
    backoff = Backoff()
    assert [backoff.after(0.1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.after(31) == 1
    assert backoff.after(5) == 2
    backoff.reset()
    assert backoff.after(5) == 1
