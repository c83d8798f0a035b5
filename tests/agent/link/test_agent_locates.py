"""Where an agent starts a generation again from: where its content is, or nowhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.errors import AgentError, LinkLostError
from hyperbox_agent.link.connection import Reply
from hyperbox_agent.link.server import AgentServer

RAN = "/where/it/ran"


@pytest.mark.parametrize(("answer", "found"), [
    (None, RAN), ({"root": "/built"}, "/built"), ({"root": None}, None),
    (LinkLostError("gone"), None), (AgentError("permission denied"), None)])
async def test_the_source_is_not_started_under_an_older_number(
        tmp_path: Path, answer: Any, found: str | None) -> None:
    async def call(op: str, body: Any, *, timeout: float) -> Reply:
        if isinstance(answer, Exception):
            raise answer
        return Reply(answer)

    server: Any = AgentServer(str(tmp_path), SystemClock())
    server.host._supervisor = SimpleNamespace(root=RAN)
    server._link = None if answer is None else SimpleNamespace(call=call)
    assert await server._locate(3) == found
