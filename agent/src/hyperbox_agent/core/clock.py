"""Time as an argument, so that no test sleeps."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Where settle, health and back-off take their time from."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` of this clock."""
        ...
