"""Events that wait, in order and bounded: output goes before anything else does."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

Numbered = tuple[int, Mapping[str, Any]]
"""An event and its place among all."""


class Backlog:
    """Output may be much, and what state the program is in must be known: each kind has a limit of
    its own. The oldest go, and are counted in ``dropped``."""

    def __init__(self) -> None:
        self.dropped = 0
        self._lines: deque[Numbered] = deque()
        self._others: deque[Numbered] = deque()
        self._put = 0

    def __len__(self) -> int:
        return len(self._lines) + len(self._others)

    def put(self, event: Mapping[str, Any], *, lines: int, others: int) -> None:
        """Keep one event, and at most so many ``lines`` of output and ``others``."""
        self._put += 1
        is_line = event.get("event") == "log"
        kind, limit = (self._lines, lines) if is_line else (self._others, others)
        kind.append((self._put, event))
        while len(kind) > limit:
            kind.popleft()
            self.dropped += 1

    def next(self) -> Numbered:
        """The oldest of all, which is kept no more. Raises IndexError where there is none."""
        if not self._others or (self._lines and self._lines[0][0] < self._others[0][0]):
            return self._lines.popleft()
        return self._others.popleft()

    def put_back(self, batch: Sequence[Numbered]) -> None:
        """What ``next`` gave, in its order, could not be handed on."""
        for numbered in reversed(batch):
            is_line = numbered[1].get("event") == "log"
            (self._lines if is_line else self._others).appendleft(numbered)

    def take_dropped(self) -> int:
        """How many were dropped since the last time."""
        dropped, self.dropped = self.dropped, 0
        return dropped
