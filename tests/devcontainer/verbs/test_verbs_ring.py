"""The ring gives every event once, in order, or counts what it could not give."""

from __future__ import annotations

import asyncio
import json

from hypothesis import given
from hypothesis import strategies as st

from hyperbox_devcontainer.verbs.ring import EventRing


def fill(ring: EventRing, count: int, word: str = "log") -> None:
    for number in range(count):
        ring.append({"event": word, "n": number})


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 30), st.integers(1, 10))
def test_what_is_read_and_what_is_lost_is_everything(bursts: list[int], room: int,
                                                     limit: int) -> None:
    ring = EventRing(max_events=room)
    position = seen = lost = 0
    for burst in bursts:
        fill(ring, burst)
        read = ring.read(position, limit)
        assert [kept.seq for kept in read.events] == list(range(
            read.position - len(read.events) + 1, read.position + 1))
        seen += len(read.events)
        lost += read.lost
        position = read.position
    while position < ring.last:
        read = ring.read(position, limit)
        seen, lost, position = seen + len(read.events), lost + read.lost, read.position
    assert seen + lost == ring.last == sum(bursts)


def test_memory_is_bounded_by_bytes_too() -> None:
    ring = EventRing(max_bytes=10_000)
    for _ in range(100):
        ring.append({"event": "log", "text": "x" * 1000})
    assert len(ring.read(0, 1000).events) < 10
    assert ring.read(0).lost > 90


def test_an_event_larger_than_the_ring_is_counted_as_lost() -> None:
    ring = EventRing(max_bytes=1000)
    ring.append({"event": "log", "text": "x" * 5000})
    read = ring.read(0)
    assert (read.events, read.lost, read.position) == ([], 1, 1)


def test_the_tail_counts_only_the_words_that_are_asked_for() -> None:
    ring = EventRing()
    for word in ("log", "state", "log", "generation", "log", "state"):
        fill(ring, 1, word)
    assert ring.tail(2, frozenset({"log"})) == 2
    assert ring.tail(0, frozenset({"log"})) == 6
    assert ring.tail(99, frozenset({"log"})) == 0


def test_events_are_encoded_once_as_they_are() -> None:
    ring = EventRing()
    ring.append({"event": "log", "text": "b\udcff"})
    assert json.loads(ring.read(0).events[0].tail) == {"event": "log", "text": "b\udcff"}


async def test_waiting_ends_with_the_next_event() -> None:
    ring = EventRing()
    waiting = [asyncio.ensure_future(ring.wait(0)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    fill(ring, 1)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    await asyncio.wait_for(ring.wait(0), 5)
