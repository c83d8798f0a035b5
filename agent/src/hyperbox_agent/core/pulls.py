"""What a program may write back to the source: the patterns of ``pull``, as a decision on paths.

Patterns are read as in a ``.gitignore``: ``uv.lock`` and ``migrations/`` count at any depth,
``/uv.lock`` at the root alone; a folder counts with all below it; ``!`` takes out again. What is
never a source counts never, whatever the patterns say.
"""

from __future__ import annotations

from collections.abc import Iterable

from hyperbox_agent.core.ignore import LEFTOVERS
from hyperbox_agent.core.patterns import PatternList, parse_git
from hyperbox_agent.core.wildmatch import byte_text

PULLED = "pull"
"""The source that patterns name."""

CONFIGURATION = "hyperbox.toml"
"""A target never changes what decides about targets."""


class PullRules:
    """Immutable. Falsy where nothing is pulled."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._wanted = PatternList(parse_git(_lines(patterns), PULLED))
        self._never = PatternList(parse_git(_lines(LEFTOVERS), PULLED))

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def __call__(self, path: str, *, is_dir: bool = False) -> bool:
        """Whether what a program writes at ``path`` comes back."""
        if path == CONFIGURATION:
            return False
        parts = path.split("/")
        wanted = False
        for depth, name in enumerate(parts, 1):
            above, folder = byte_text("/".join(parts[:depth])), is_dir or depth < len(parts)
            if self._says(self._never, above, name, folder):
                return False
            verdict = self._wanted.match(above, byte_text(name), folder)
            if verdict is not None:
                wanted = not verdict.negative
        return wanted

    @staticmethod
    def _says(patterns: PatternList, path: str, name: str, is_dir: bool) -> bool:
        verdict = patterns.match(path, byte_text(name), is_dir)
        return verdict is not None and not verdict.negative


def _lines(patterns: Iterable[str]) -> bytes:
    return "\n".join(patterns).encode("utf-8", "surrogateescape")
