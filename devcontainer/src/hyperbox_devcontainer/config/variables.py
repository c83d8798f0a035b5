"""What an environment variable's text means for a key."""

from __future__ import annotations

import json
from typing import Any

from hyperbox_devcontainer.config.checks import Wrong
from hyperbox_devcontainer.config.schema import Key


def from_text(key: Key, text: str) -> Any:
    """A variable's text as the kind of value that the key has.

    Text is tried first: a command or a pattern is taken as it is written, unless it is a JSON list.
    """
    for candidate in _readings(text):
        try:
            key.check(candidate)
        except Wrong:
            continue
        return candidate
    return text


def _readings(text: str) -> list[Any]:
    readings: list[Any] = []
    if text[:1] in "[{":
        try:
            readings.append(json.loads(text))
        except ValueError:
            pass  # not JSON: a pattern may well begin with a bracket
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    readings.append(text)
    try:
        readings.append(int(text) if text.strip().isdigit() else float(text))
    except ValueError:
        pass  # no number
    if text.lower() in words:
        readings.append(words[text.lower()])
    readings.append([part.strip() for part in text.split(",") if part.strip()])
    return readings
