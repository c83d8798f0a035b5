"""Events in words."""

from __future__ import annotations

from typing import Any

import pytest

from hyperbox_tui.view.spans import Style, paint
from hyperbox_tui.view.words import (
    count,
    duration,
    generation_lines,
    names,
    size,
    source_lines,
    state_spans,
    where,
)

STYLE = Style()


@pytest.mark.parametrize(("ms", "words"), [
    (None, ""), (0.04, "0.0 ms"), (9.94, "9.9 ms"), (9.96, "10 ms"), (31.4, "31 ms"),
    (999.4, "999 ms"), (1900, "1.9 s"), (119_000, "119.0 s"), (300_000, "5 min"),
])
def test_durations(ms: float | None, words: str) -> None:
    assert duration(ms) == words


def test_counts_and_sizes() -> None:
    assert [count(number, "file") for number in (0, 1, 3000)] == ["0 files", "1 file",
                                                                  "3,000 files"]
    assert [size(number) for number in (0, 999, 1_200_000, 5e12)] == ["0 B", "999 B", "1.2 MB",
                                                                     "5000.0 GB"]


@pytest.mark.parametrize(("event", "shown"), [
    ({"files": 1, "paths": ["a"]}, "a"), ({"files": 3, "paths": ["a", "b", "c"]}, "a, b, c"),
    ({"files": 4, "paths": ["a", "b", "c", "d"]}, "a, b, c, …"), ({"files": 0, "paths": []}, ""),
    ({"files": 9, "paths": ["a"]}, "a, …"), ({}, ""),
])
def test_names_of_a_generations_files(event: dict[str, Any], shown: str) -> None:
    assert names(event) == shown


@pytest.mark.parametrize(("error", "place"), [
    ({"path": "a.py", "line": 3, "column": 8}, "a.py:3:8"), ({"path": "a.py", "line": 3}, "a.py:3"),
    ({"path": "a.py", "line": None}, "a.py"), ({"path": None, "line": 3}, ""), ({}, ""),
])
def test_the_place_of_an_error(error: dict[str, Any], place: str) -> None:
    assert where(error) == place


def lines(event: dict[str, Any], **more: Any) -> list[str]:
    return [paint(line, STYLE) for line in generation_lines(event, STYLE, **more)]


def test_a_superseded_generation_is_one_quiet_line() -> None:
    assert lines({"number": 4, "verdict": "superseded"}) == ["· #4 superseded by the next save"]


def test_a_broken_generation_without_a_place_shows_all_of_its_message() -> None:
    event = {"number": 4, "verdict": "rolled_back", "serving": None, "error": {
        "phase": "health", "message": "exit status 1\nTraceback\n  KeyError", "hint": "set X"}}
    assert lines(event) == ["✖ #4 health  exit status 1", "    Traceback", "      KeyError",
                            "    → set X", "    rolled back: nothing is serving"]


def test_the_caret_stands_below_its_column() -> None:
    shown = [paint(line, STYLE) for line in source_lines(
        {"line": 31, "column": 9}, "\treturn sum(x")]
    assert shown == ["    31 | return sum(x", "       |        ^"]


@pytest.mark.parametrize(("target", "word"), [
    ({"state": "live"}, "● live"), ({"state": "live", "error": {}}, "● live"),
    ({"state": "live", "error": {"phase": "gate"}}, "✖ rolled back"),
    ({"state": "broken", "error": {"phase": "gate"}}, "✖ broken"),
    ({"state": "starting"}, "◐ starting"), ({"state": "offline"}, "! offline"),
    ({"state": "down"}, "○ down"), ({"state": "shipping"}, "· shipping"), ({}, "○ down"),
])
def test_a_state_is_a_mark_and_a_word(target: dict[str, Any], word: str) -> None:
    assert state_spans(target, STYLE).text == word


def test_a_cold_restart_says_what_kept_it_from_being_warm() -> None:
    event = {"number": 4, "verdict": "committed", "rung": "cold", "files": 1, "paths": ["a.py"],
             "ms": {"total": 900}, "why": "a.py is loaded; not warm: grpc has threads"}
    assert lines(event) == ["● #4 cold restart 900 ms  1 file  a.py  not warm: grpc has threads"]
    assert lines(event | {"why": ".env may change the program's environment"}) == [
        "● #4 cold restart 900 ms  1 file  a.py"]
    assert lines(event | {"first": True}) == ["● #4 started 900 ms  1 file"]
