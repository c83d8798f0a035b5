"""The one stream of events, as plain JSON objects. Fields may be added; these stay."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from hyperbox_agent.core.entries import Change
from hyperbox_agent.core.generation import PHASES, Outcome, State

SHOWN_PATHS = 50
"""A generation's event names at most this many paths; ``files`` counts them all. So it does with
those in which the source ``differs`` from what was rolled back to; ``differing`` counts them."""


def generation_event(project: str, target: str, outcome: Outcome, changes: Sequence[Change], *,
                     sent: int, total_ms: float, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What happened to one generation."""
    files = [change for change in changes
             if (change.new or change.old) is not None and not _folder(change)]
    ms = {phase: round(outcome.ms[phase], 3) for phase in PHASES if phase in outcome.ms}
    ms["total"] = round(total_ms, 3)
    return {
        "event": "generation",
        "project": project,
        "target": target,
        "number": outcome.number,
        "verdict": outcome.verdict.value,
        "rung": outcome.rung.word,
        "why": outcome.why,
        "files": len(files),
        "bytes": sent,
        "ms": ms,
        "error": outcome.error.as_json() if outcome.error else None,
        "serving": outcome.serving,
        "paths": [change.path for change in files[:SHOWN_PATHS]],
        "time": time.time(),
        **extra,
        **({"facts": dict(outcome.facts)} if outcome.facts else {}),
    }


def _folder(change: Change) -> bool:
    shown = change.new or change.old
    return shown is not None and shown.kind.value == "dir"


def state_event(project: str, target: str, state: State, number: int | None, *,
                url: str | None, pid: int | None,
                error: Mapping[str, Any] | None) -> dict[str, Any]:
    """What answers now."""
    return {"event": "state", "project": project, "target": target, "state": state.value,
            "number": number, "url": url, "pid": pid, "error": dict(error) if error else None}


def log_event(project: str, target: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """One line of a program's output."""
    return {"event": "log", "project": project, "target": target,
            "stream": event.get("stream", "stdout"), "number": event.get("number"),
            "text": event.get("text", ""), **({"partial": True} if event.get("partial") else {})}


def problem_event(project: str, target: str, message: str, *, path: str | None = None,
                  hint: str | None = None) -> dict[str, Any]:
    """Something that the user should know and that stopped nothing."""
    return {"event": "problem", "project": project, "target": target, "message": message,
            "path": path, "hint": hint}


def pulled_event(project: str, target: str, paths: Sequence[str]) -> dict[str, Any]:
    """What the program wrote was taken up into the source."""
    return {"event": "pulled", "project": project, "target": target, "files": len(paths),
            "paths": list(paths[:SHOWN_PATHS])}
