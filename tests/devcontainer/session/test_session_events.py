"""What a session makes of its agent's events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_devcontainer.session.options import SessionOptions
from hyperbox_devcontainer.session.session import Session


@pytest.mark.parametrize(("mode", "owned"), [("mirror", []), ("in-place", ["state.json"])])
def test_a_mirrored_programs_writes_hide_no_save(mode: str, owned: list[str]) -> None:
    told: list[str] = []
    source: Any = SimpleNamespace(own=told.extend, next=None, pending=0)
    other: Any = SimpleNamespace(last_number=lambda: 0)
    options = SessionOptions(project="p", root="/p", target="t", kind="process", mode=mode,
                             home="/h", tree="/t", state_dir="/s")
    session = Session(options, source, other, other, other, SystemClock(), lambda event: None, {})
    session._on_agent_event({"event": "wrote", "number": 1, "paths": ["state.json"]})
    assert told == owned
