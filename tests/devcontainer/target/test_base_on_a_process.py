"""A real agent with a tree of its own takes a batch only against what that tree holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core import delta
from hyperbox_agent.core.bundle import pack_blobs
from hyperbox_agent.core.entries import Entry, Kind
from hyperbox_agent.core.generation import Outcome, Verdict
from hyperbox_agent.errors import BaseChangedError
from hyperbox_agent.link.connection import Link
from hyperbox_agent.link.messages import Configure, Configured, GenerationRequest, Wanted
from hyperbox_devcontainer.target.landing import land_agent
from hyperbox_devcontainer.target.process import ProcessTarget

TIME = 60.0
APP = {"name": "app", "command": ["sleep", "600"], "ready_after": 0.0}


async def save(link: Link, number: int, base: int, content: bytes) -> Outcome:
    digest = hashlib.sha256(content).digest()
    wanted = Wanted("a.txt", Entry("a.txt", Kind.FILE, 0o644, len(content), digest))
    body, head = GenerationRequest(number, base, (wanted,), first=number == 1).pack()
    payload = head + b"".join(pack_blobs([(digest, delta.encode(content))]))
    return Outcome.from_json(
        (await link.call("generation", body, payload, timeout=TIME)).body)


async def test_a_batch_that_comes_twice_or_after_a_lost_answer_is_refused(tmp_path: Path) -> None:
    target = ProcessTarget("process")
    home, tree = tmp_path / ".hyperbox-T", tmp_path / "T"
    link = await land_agent(target, str(home), clock=SystemClock(), timeout=TIME)
    try:
        asked = Configure("s", "p", "mirror", str(tree), APP)
        await link.call("configure", asked.as_json(), timeout=TIME)
        assert (await save(link, 1, 0, b"one")).verdict is Verdict.COMMITTED
        with pytest.raises(BaseChangedError) as twice:
            await save(link, 1, 0, b"one")
        assert (twice.value.base, twice.value.holds) == (0, 1)
        assert (await save(link, 2, 1, b"two")).verdict is Verdict.COMMITTED
        with pytest.raises(BaseChangedError, match="holds #2, not #1"):
            await save(link, 3, 1, b"three")
        assert (tree / "a.txt").read_bytes() == b"two"
        again = Configured.from_json(
            (await link.call("configure", asked.as_json(), timeout=TIME)).body)
        assert again.number == 2
        assert (await save(link, 3, again.number, b"three")).verdict is Verdict.COMMITTED
    finally:
        await link.call("stop", {"fast": True}, timeout=TIME)
        await link.close()
        await target.close()
