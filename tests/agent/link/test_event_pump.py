"""Events on their way to a session that listens, is slow, goes away and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.errors import LinkLostError
from hyperbox_agent.link.events import FULL, KEPT, EventPump


class SlowLink:
    """Takes notifications while it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.lost = False
        self.got: list[Mapping[str, Any]] = []
        self.dropped = 0

    async def notify(self, op: str, body: Mapping[str, Any]) -> None:
        await self.open.wait()
        if self.lost:
            raise LinkLostError("gone")
        self.got += body["events"]
        self.dropped += body["dropped"]


def line(number: int) -> dict[str, Any]:
    return {"event": "log", "text": str(number)}


def listen(pump: EventPump, link: SlowLink) -> asyncio.Task[None]:
    made: Any = link
    return asyncio.ensure_future(pump.run(made))


async def received(link: SlowLink, count: int) -> list[Mapping[str, Any]]:
    deadline = time.monotonic() + 20
    while len(link.got) < count:
        assert time.monotonic() < deadline, "they did not come"
        await asyncio.sleep(0)
    return link.got


async def test_nothing_is_lost_while_a_slow_session_listens() -> None:
    pump, link = EventPump(), SlowLink()
    listening = listen(pump, link)
    await asyncio.sleep(0)
    wanted = [line(number) for number in range(2 * KEPT)]  # a piece of very short lines
    for event in wanted:
        pump.put(event)
    reader = asyncio.ensure_future(pump.room())
    await asyncio.sleep(0)
    assert not reader.done(), "more is read though nothing is taken"
    link.open.set()
    assert await received(link, len(wanted)) == wanted
    assert link.dropped == 0
    await asyncio.wait_for(reader, 5)
    listening.cancel()


async def test_only_the_oldest_output_goes_while_nobody_listens() -> None:
    pump, link = EventPump(), SlowLink()
    pump.put({"event": "state", "state": "live"})
    for number in range(KEPT + 10):
        pump.put(line(number))
    pump.put({"event": "problem", "message": "late"})
    await asyncio.wait_for(pump.room(), 5)
    link.open.set()
    listening = listen(pump, link)
    got = await received(link, KEPT + 2)
    assert got[0]["event"] == "state"
    assert got[1] == line(10)
    assert got[-1]["event"] == "problem"
    assert link.dropped == 10
    listening.cancel()


async def test_what_was_under_way_when_the_link_was_lost_comes_once_and_in_order() -> None:
    pump, broken, link = EventPump(), SlowLink(), SlowLink()
    listening = listen(pump, broken)
    kinds = [line(number) if number % 3 else {"event": "state", "number": number}
             for number in range(FULL)]
    for event in kinds[:300]:
        pump.put(event)
    await asyncio.sleep(0)
    broken.lost = True
    broken.open.set()
    await asyncio.wait_for(listening, 5)
    for event in kinds[300:]:
        pump.put(event)
    link.open.set()
    taken_over = listen(pump, link)
    assert await received(link, FULL) == kinds
    taken_over.cancel()


async def test_a_newer_session_gets_what_the_older_one_had_not_taken() -> None:
    pump, stuck, link = EventPump(), SlowLink(), SlowLink()
    old = listen(pump, stuck)
    for number in range(10):
        pump.put(line(number))
    await asyncio.sleep(0)
    link.open.set()
    old.cancel()
    new = listen(pump, link)
    assert await received(link, 10) == [line(number) for number in range(10)]
    new.cancel()
