"""Halves of a save: a save-all's first file looks like a save of its own until the next one comes.

Waiting for it would make every single save slow. So a lone file goes live soon, and what follows it
at once shows that it was a half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hyperbox_agent.core.entries import Change

COMPANY = 0.026
"""Seconds after a lone file within which a save-all's next one mostly follows."""
SAME_SAVE = 0.060
"""Seconds after a lone file went live within which another one belongs to the same save."""
_SHARE = 1.3


@dataclass(frozen=True, slots=True)
class Lone:
    """A file that went live alone."""

    path: str
    at: float


def is_lone(changes: Sequence[Change]) -> bool:
    """Whether these may be the first half of a save."""
    return len(changes) == 1


def not_before(began: float, ready: float) -> float:
    """When a version that a lone file made, known since ``began``, may go live, being ``ready``.

    Another file that follows makes it half of a save-all, so it waits until that is unlikely; not
    much longer, though, than it took anyway: for what starts in 8 ms, 18 more are not a small wait.
    """
    return began + min(COMPANY, _SHARE * (ready - began))


def is_rest_of(lone: Lone, changes: Sequence[Change], now: float) -> bool:
    """Whether ``changes`` show that what went live ``lone`` was half of a save."""
    return (now - lone.at < SAME_SAVE and bool(changes)
            and all(change.path != lone.path for change in changes))
