from __future__ import annotations

import asyncio
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.supervise.output import LINE_LIMIT, QUIET, Line, LineSplitter, Pump


def all_lines(splitter: LineSplitter, *chunks: bytes) -> list[Line]:
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    last = splitter.end()
    return lines if last is None else [*lines, last]


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_lines_do_not_depend_on_where_the_reads_fell(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assert all_lines(LineSplitter(16), *chunks) == all_lines(LineSplitter(16), whole)


@given(st.text(max_size=300), st.integers(4, 32))
def test_nothing_is_lost_by_cutting_long_lines_not_even_half_a_character(
        text: str, limit: int) -> None:
    data = text.replace("\n", "").replace("\r", "").encode("utf-8", "surrogatepass")
    lines = all_lines(LineSplitter(limit), data)
    assert "".join(line.text for line in lines) == data.decode("utf-8", "replace")
    assert all(line.cut for line in lines[:-1])
    assert all(len(line.text.encode()) <= limit for line in lines if "\ufffd" not in line.text)


def test_line_ends_and_bytes_that_are_no_text() -> None:
    lines = all_lines(LineSplitter(), b"a\r\n\nb\xff\rc\nlast")
    assert [line.text for line in lines] == ["a", "", "b\ufffd\rc", "last"]


def test_a_line_of_ten_megabytes_is_never_held_whole() -> None:
    splitter = LineSplitter()
    lines = [line for _ in range(160) for line in splitter.feed(b"x" * 65536)]
    assert {len(line.text) for line in lines} == {LINE_LIMIT}
    assert len(splitter.peek().text) <= LINE_LIMIT


class Reader:
    """A pipe whose output is pumped into a list."""

    def __init__(self, clock: Any, room: Any = None) -> None:
        reader, self.writer = os.pipe()
        self.got: list[Line] = []
        self.pump = Pump(reader, "stdout", lambda _, line: self.got.append(line), clock,
                         room=room)

    def write(self, data: bytes) -> None:
        os.write(self.writer, data)

    def end(self) -> None:
        os.close(self.writer)


async def test_an_unfinished_line_is_shown_after_a_short_quiet_and_completed_later(
        fake_clock: Any, helpers: Any) -> None:
    read = Reader(fake_clock)
    read.write(b"name? ")
    await helpers.until(lambda: read.pump._splitter.unfinished)
    await fake_clock.advance(QUIET * 0.9)
    assert read.got == []
    await fake_clock.advance(QUIET)
    assert read.got == [Line("name? ", partial=True)]
    await fake_clock.advance(10)
    assert len(read.got) == 1
    read.write(b"me\nnext")
    await helpers.until(lambda: len(read.got) == 2)
    assert read.got[1] == Line("name? me")
    read.end()
    assert await read.pump.drained(1)
    assert read.got[2] == Line("next")
    assert read.pump.fd == -1


async def test_a_slow_consumer_stops_the_reading_and_loses_nothing() -> None:
    gate = asyncio.Semaphore(0)

    async def room() -> None:
        await gate.acquire()

    read = Reader(SystemClock(), room)
    os.set_blocking(read.writer, False)
    sent = bytearray()
    for number in range(100_000):
        line = b"line %06d\n" % number
        try:
            if os.write(read.writer, line) != len(line):
                break
        except BlockingIOError:
            await asyncio.sleep(0)
            try:
                os.write(read.writer, line)
            except BlockingIOError:
                break
        sent += line
    assert len(sent) < 300_000, "the pump did not stop reading"
    read.end()
    for _ in range(50):
        gate.release()
    assert await read.pump.drained(5)
    assert "".join(line.text + "\n" for line in read.got).encode() == bytes(sent)


async def test_a_grandchild_that_keeps_the_pipe_open_is_waited_for_only_so_long(
        fake_clock: Any, helpers: Any) -> None:
    read = Reader(fake_clock)
    read.write(b"whole\nhalf")
    await helpers.until(lambda: read.got)
    waiting = asyncio.ensure_future(read.pump.drained(0.5))
    await fake_clock.advance(0.6)
    assert await waiting is False
    assert read.got == [Line("whole"), Line("half", partial=True)]
    read.write(b" and more\n")
    await helpers.until(lambda: len(read.got) == 3)
    assert read.got[2] == Line("half and more")
    read.end()
    read.pump.close()
    read.pump.close()


async def test_close_reads_what_is_there(fake_clock: Any) -> None:
    read = Reader(fake_clock)
    read.write(b"a\nb")
    read.pump.close()
    read.end()
    assert [line.text for line in read.got] == ["a", "b"]
