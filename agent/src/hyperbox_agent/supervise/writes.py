"""What the program itself wrote into its tree, as its shim told."""

from __future__ import annotations

from collections.abc import Iterable

_LIMIT = 10_000


class Writes:
    """Paths and when they were last written. The oldest are forgotten first."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def add(self, paths: Iterable[str], now: float) -> None:
        """The program says that it wrote these."""
        for path in paths:
            self._at.pop(path, None)
            self._at[path] = now
        while len(self._at) > _LIMIT:
            del self._at[next(iter(self._at))]

    def wrote(self, path: str, since: float) -> bool:
        """Whether the program wrote this path at ``since`` or later."""
        at = self._at.get(path)
        return at is not None and at >= since
