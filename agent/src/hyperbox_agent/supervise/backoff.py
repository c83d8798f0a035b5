"""How long to wait before a program that crashed is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST, LONGEST, CALM = 1.0, 30.0, 30.0


@dataclass(slots=True)
class Backoff:
    """1 s, 2 s, 4 s … 30 s; from the start again after a life of 30 s."""

    _next: float = FIRST

    def after(self, lived: float) -> float:
        """Seconds to wait after an instance that lived so long."""
        if lived >= CALM:
            self._next = FIRST
        wait, self._next = self._next, min(self._next * 2, LONGEST)
        return wait

    def reset(self) -> None:
        """A new version has been put in place: its crashes are its own."""
        self._next = FIRST
