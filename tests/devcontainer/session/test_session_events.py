"""What a session makes of its agent's events."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_devcontainer.session.events import problem_event
from hyperbox_devcontainer.session.options import SessionOptions
from hyperbox_devcontainer.session.session import Session
from hyperbox_devcontainer.session.told import detection


def session_of(mode: str, told: list[Any], *, root: str = "/p", own: list[str] | None = None,
               **tree: Any) -> Session:
    """A session that is not opened; what it tells comes into ``told``."""
    source: Any = SimpleNamespace(
        own=(own if own is not None else []).extend, next=None, pending=0, watcher=None,
        tree=SimpleNamespace(root=root, problems={}, **tree))
    other: Any = SimpleNamespace(last_number=lambda: 0, moved_aside=None)
    options = SessionOptions(project="p", root=root, target="t", kind="process", mode=mode,
                             home="/h", tree="/t", state_dir="/s")
    return Session(options, source, other, other, other, SystemClock(), told.append, {})


@pytest.mark.parametrize(("mode", "owned"), [("mirror", []), ("in-place", ["state.json"])])
def test_a_mirrored_programs_writes_hide_no_save(mode: str, owned: list[str]) -> None:
    own: list[str] = []
    session = session_of(mode, [], own=own)
    session._on_agent_event({"event": "wrote", "number": 1, "paths": ["state.json"]})
    assert own == owned


@pytest.mark.parametrize("event", [
    {"event": "generation", "number": 1, "verdict": "committed", "rung": "warm", "why": "",
     "files": 1, "bytes": 1, "ms": {}, "error": None},
    {"event": "began", "number": 3}, {"event": "pulled", "paths": ["a"]}, {"event": "detection"},
    {"event": "stopping"}, {"event": ["log"]}, {"event": None}, {},
    {"event": "state", "state": "wonderful"}, {"event": "state"}, {"event": "state", "state": []},
    {"event": "phase", "phase": 3}, {"event": "problem", "message": ["x"]},
    {"event": "missing"}, {"event": "missing", "path": 3}])
def test_what_a_target_must_not_tell_nobody_hears(event: dict[str, Any]) -> None:
    told: list[Any] = []
    session = session_of("mirror", told)
    before = session.view.as_json(0)
    session._on_agent_event(event)
    assert told == []
    assert session.view.as_json(0) == before


def test_an_agents_events_have_their_own_keys_and_the_sessions_names() -> None:
    told: list[Any] = []
    session = session_of("mirror", told)
    session._on_agent_event({"event": "phase", "project": "other", "target": "other",
                             "number": 3, "phase": "gate", "verdict": "committed"})
    session._on_agent_event({"event": "log", "stream": "stdin", "text": "x", "number": True})
    session._on_agent_event({"event": "state", "state": "live", "number": 3, "url": 7,
                             "pid": "1", "project": "other"})
    names = {"project": "p", "target": "t"}
    assert told == [
        {"event": "phase", "number": 3, "phase": "gate", **names},
        {"event": "log", "stream": "stdout", "number": None, "text": "x", **names},
        {"event": "state", "state": "live", "number": 3, "url": None, "pid": None,
         "error": None, **names}]


def test_what_is_found_when_the_first_version_stands_there_is_told() -> None:
    told: list[Any] = []
    session = session_of("mirror", told)
    session._on_agent_event({"event": "detection", "pack": "python", "command": ["flask"],
                             "notes": ["a note"], "project": "other"})
    assert told == [{"event": "detection", "pack": "python", "command": ["flask"],
                     "notes": ["a note"], "project": "p", "target": "t"}]
    assert session.view.notes == ["a note"]


def test_of_what_a_target_says_that_it_found_only_the_known_counts() -> None:
    assert detection({"detection": {"event": "generation", "project": "x", "pack": "python",
                                    "port": True, "notes": [1], "command": ["a"]}}) == {
        "event": "detection", "pack": "python", "command": ["a"]}
    assert detection({"detection": [1]}) == detection({}) == {}


def test_an_ignored_file_that_the_program_looked_for_is_named_once(tmp_path: Path) -> None:
    for name in (".env", "sent.py", "venv/pyvenv.cfg", "venv/x", "node_modules/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    told: list[Any] = []
    session = session_of("mirror", told, root=str(tmp_path), manifest={"sent.py": None},
                         reason=lambda path: None if path == "not-ignored" else "a pattern")
    (tmp_path / "not-ignored").write_text("")
    for path in (".env", ".env", "sent.py", "absent", "venv/x", "node_modules/a", "../p/.env",
                 "/etc/passwd", ".git/config", "not-ignored"):
        session._on_agent_event({"event": "missing", "path": path, "number": 1})
    assert told == [problem_event(
        "p", "t", "the program looked for .env, which is ignored here and so is not on t",
        path=".env",
        hint='[sync] include = [".env"] sends it, from the next `hyperbox up` on')]
    assert list(session.view.problems.values()) == told
    in_place = session_of("in-place", told, root=str(tmp_path), manifest={}, reason=str)
    in_place._on_agent_event({"event": "missing", "path": ".env"})
    assert len(told) == 1


def test_a_history_that_was_moved_aside_is_named() -> None:
    told: list[Any] = []
    session = session_of("mirror", told)
    other: Any = session._history
    other.moved_aside = "/s/history.sqlite.damaged-1"
    session._report_problems()
    session._report_problems()
    assert [(one["event"], one["path"]) for one in told] == [
        ("problem", "/s/history.sqlite.damaged-1")]
