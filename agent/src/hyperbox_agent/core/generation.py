"""Generations and events: the shapes that every room shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hyperbox_langpacks.base import Rung

PHASES = ("settle", "plan", "ship", "stage", "gate", "apply", "reload", "health")
"""The phases of a generation in their order; ``total`` stands beside them in timings."""


class Verdict(str, Enum):
    """How a generation ended."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"


class State(str, Enum):
    """What answers now."""

    STARTING = "starting"
    LIVE = "live"
    BROKEN = "broken"
    DOWN = "down"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a generation was rolled back: what happened, where, what to do."""

    phase: str
    message: str
    path: str | None = None
    line: int | None = None
    hint: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The ``error`` object of the event stream."""
        out: dict[str, Any] = {"phase": self.phase, "path": self.path, "line": self.line,
                               "message": self.message}
        if self.hint:
            out["hint"] = self.hint
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Failure:
        """The inverse of ``as_json``."""
        return cls(phase=str(data["phase"]), message=str(data["message"]), path=data.get("path"),
                   line=data.get("line"), hint=data.get("hint"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the target says about one generation."""

    number: int
    verdict: Verdict
    rung: Rung
    why: str
    ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by phase; phases that did not happen are absent."""
    error: Failure | None = None
    serving: int | None = None
    """The number that answers now."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for the trace: bytes, round trips, cut streams, library that refused the warm rung."""

    def as_json(self) -> dict[str, Any]:
        """As it crosses the link."""
        return {"number": self.number, "verdict": self.verdict.value, "rung": self.rung.word,
                "why": self.why, "ms": dict(self.ms), "serving": self.serving,
                "error": self.error.as_json() if self.error else None, "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """The inverse of ``as_json``."""
        error = data.get("error")
        return cls(number=int(data["number"]), verdict=Verdict(data["verdict"]),
                   rung=Rung[str(data["rung"]).upper()], why=str(data["why"]),
                   ms=dict(data.get("ms", {})), error=Failure.from_json(error) if error else None,
                   serving=data.get("serving"), facts=dict(data.get("facts", {})))
