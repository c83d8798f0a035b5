"""What a session knows, kept from its events: pure, and read by ``status``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hyperbox_agent.core.generation import State


@dataclass(slots=True)
class TargetView:
    """One target as ``status --json`` shows it."""

    name: str
    kind: str
    mode: str
    state: State = State.STARTING
    number: int | None = None
    rung: str | None = None
    url: str | None = None
    pid: int | None = None
    phase: str | None = None
    error: Mapping[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    problems: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By a key; what the user should know and can mend."""
    paused: bool = False

    def take(self, event: Mapping[str, Any]) -> None:
        """Follow one event of this target."""
        kind = event.get("event")
        if kind == "state":
            self.state = State(event["state"])
            self.number = event.get("number")
            self.url = event.get("url") or self.url
            self.pid = event.get("pid")
        elif kind == "phase":
            self.phase = event.get("phase")
        elif kind == "generation":
            self._ended(event)

    def _ended(self, event: Mapping[str, Any]) -> None:
        self.phase = None
        if event["verdict"] == "committed":
            self.rung = event["rung"]
            self.number = event["number"]
            self.error = None
        elif event["verdict"] == "rolled_back":
            self.error = {**event["error"], "number": event["number"]}

    def as_json(self, pending: int, passing: Sequence[Mapping[str, Any]] = (), *,
                held: int | None = None, silent: bool = False) -> dict[str, Any]:
        """An entry of ``targets`` in ``status --json``. ``passing``: problems that hold just now.
        ``held``: the generation that was rolled back to, until the next save.
        ``silent``: no sign of life comes from there, although the link is not given up yet."""
        state = State.OFFLINE if silent and self.state is not State.DOWN else self.state
        return {"name": self.name, "kind": self.kind, "mode": self.mode,
                "state": state.value, "number": self.number, "rung": self.rung,
                "url": self.url, "pid": self.pid, "pending": pending,
                "held": held if held == self.number else None, "paused": self.paused,
                "phase": self.phase, "error": dict(self.error) if self.error else None,
                "notes": list(self.notes), "problems": [*self.problems.values(), *passing]}
