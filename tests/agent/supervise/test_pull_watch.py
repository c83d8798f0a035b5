"""The watch of pulled paths goes on when it could not be set at first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.entries import Entry, Kind, Manifest
from hyperbox_agent.core.pulls import PullRules
from hyperbox_agent.errors import WatchError
from hyperbox_agent.supervise import pulling
from hyperbox_agent.supervise.pulling import PullWatch


class NoWatch:
    """A watcher that has no watches left."""

    name, problems = "none", {}

    def start(self, dirs: Iterable[str]) -> None:
        raise WatchError("no inotify watches are left")

    def close(self) -> None:
        """Nothing is open."""


async def test_a_watch_that_could_not_be_set_is_told_once_and_tried_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "AGAIN", 0.01)
    real, refused = pulling.choose_watcher, []

    def choose(root: str, sink: object) -> object:
        if len(refused) < 2:
            refused.append(root)
            return NoWatch()
        return real(root, sink)  # type: ignore[arg-type]

    monkeypatch.setattr(pulling, "choose_watcher", choose)
    entry = Entry("uv.lock", Kind.FILE, size=1, digest=bytes(32))

    async def look() -> tuple[Manifest, Manifest]:
        return {}, {"uv.lock": entry}

    told, problems = asyncio.Event(), []
    watch = PullWatch(str(tmp_path), PullRules(("uv.lock",)), look, frozenset, SystemClock(),
                      told.set, problems.append)
    running = asyncio.ensure_future(watch.run())
    await asyncio.wait_for(told.wait(), 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(refused) == 2
    assert problems == ["what the program writes is not watched: no inotify watches are left"]
