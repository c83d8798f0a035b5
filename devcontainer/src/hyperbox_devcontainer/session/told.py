"""What an agent may tell: events of these names, with these keys. Everything else is left out.

Screens, scripts and the history read one stream. A target is not to be trusted with it: what it
could forge (a generation, another project's state) is not even looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hyperbox_agent.core.generation import State

LONG = 1 << 20
"""Characters of one text at most; the agent cuts lines of output far below that."""

Check = Callable[[object], bool]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _number(value: object) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONG


def _true(value: object) -> bool:
    return value is True


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _wholes(value: object) -> bool:
    return isinstance(value, list) and all(map(_whole, value))


def _state(value: object) -> bool:
    return value in {state.value for state in State}


def _command(value: object) -> bool:
    return _texts(value) and value != []


_STATE: Mapping[str, Check] = {"state": _state, "number": _whole, "url": _text, "pid": _whole}
_DETECTION: Mapping[str, Check] = {
    "pack": _text, "why": _text, "command": _command, "port": _whole, "notes": _texts,
    "framework": _text}
_EVENTS: Mapping[str, Mapping[str, Check]] = {
    "log": {"stream": {"stdout", "stderr"}.__contains__, "number": _whole, "text": _text,
            "partial": _true},
    "state": _STATE,
    "phase": {"number": _whole, "phase": _text},
    "notify": {"number": _whole, "paths": _texts},
    "retired": {"number": _whole, "cut": _whole, "killed": _whole, "left": _wholes,
                "ms": _number},
    "problem": {"number": _whole, "message": _text, "path": _text, "hint": _text},
    "note": {"number": _whole, "text": _text},
    "dropped": {"count": _whole},
    "wrote": {"paths": _texts},
    "written": {},
    "missing": {"path": _text},
    "detection": _DETECTION,
}
_NEEDED = {"state": "state", "problem": "message", "missing": "path", "phase": "phase",
           "detection": "pack"}


def taken(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """What counts of an agent's event; None: nothing."""
    word = event.get("event")
    keys = _EVENTS.get(word) if isinstance(word, str) else None
    if keys is None:
        return None
    if word == "problem" and "message" not in event:
        event = {"message": event.get("text")}  # the word of the shim in the program itself
    found = _only(event, keys)
    return {"event": word, **found} if _NEEDED.get(str(word), "event") in {"event", *found} \
        else None


def detection(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The event of what an agent says that it found, as far as that counts; empty: nothing."""
    found = facts.get("detection")
    known = _only(found, _DETECTION) if isinstance(found, Mapping) else {}
    return {"event": "detection", **known} if known else {}


def _only(given: Mapping[str, Any], keys: Mapping[str, Check]) -> dict[str, Any]:
    return {key: given[key] for key, check in keys.items()
            if key in given and _hashable(given[key], check)}


def _hashable(value: object, check: Check) -> bool:
    """Whether ``check`` takes it; what can't even be looked up in a set is taken by none."""
    try:
        return check(value)
    except TypeError:
        return False
