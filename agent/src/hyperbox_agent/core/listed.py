"""Paths that a list of patterns names, read as in a ``.gitignore``.

``uv.lock`` and ``migrations/`` count at any depth, ``/uv.lock`` at the root alone; a folder counts
with all below it; ``!`` takes out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hyperbox_agent.core.patterns import PatternList, parse_git
from hyperbox_agent.core.wildmatch import byte_text


class Listed:
    """Immutable. Falsy where there is no pattern."""

    def __init__(self, patterns: Iterable[str], source: str) -> None:
        """``source`` is what the patterns are called where they are spoken of."""
        lines = "\n".join(patterns).encode("utf-8", "surrogateescape")
        self._patterns = PatternList(parse_git(lines, source))

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def __call__(self, path: str, *, is_dir: bool = False) -> bool:
        """Whether the patterns name ``path``, or a folder that it is in."""
        return (False, *self.verdicts(path, is_dir=is_dir))[-1]

    def verdicts(self, path: str, *, is_dir: bool = False) -> Iterator[bool]:
        """What the patterns say of each folder above ``path`` and then of itself, where they do."""
        parts = path.split("/")
        for depth, name in enumerate(parts, 1):
            verdict = self._patterns.match(byte_text("/".join(parts[:depth])), byte_text(name),
                                           is_dir or depth < len(parts))
            if verdict is not None:
                yield not verdict.negative
