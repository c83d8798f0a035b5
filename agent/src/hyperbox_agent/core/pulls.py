"""What a program may write back to the source: the patterns of ``pull``, as a decision on paths.

Patterns are read as in a ``.gitignore`` (see ``listed.py``). What is never a source counts never,
whatever the patterns say.
"""

from __future__ import annotations

from collections.abc import Iterable

from hyperbox_agent.core.ignore import LEFTOVERS
from hyperbox_agent.core.listed import Listed

PULLED = "pull"
"""The source that patterns name."""

CONFIGURATION = "hyperbox.toml"
"""A target never changes what decides about targets."""


class PullRules:
    """Immutable. Falsy where nothing is pulled."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._wanted = Listed(patterns, PULLED)
        self._never = Listed(LEFTOVERS, PULLED)

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def __call__(self, path: str, *, is_dir: bool = False) -> bool:
        """Whether what a program writes at ``path`` comes back."""
        if path == CONFIGURATION or any(self._never.verdicts(path, is_dir=is_dir)):
            return False
        return self._wanted(path, is_dir=is_dir)
