"""What a session must know, as one frozen value. ``config/`` makes it from files and flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """One project on one target."""

    project: str
    root: str
    """Absolute path of the source."""
    target: str
    kind: str
    mode: str
    """``"in-place"`` or ``"mirror"``."""
    home: str
    """The target's home: store, journal, sockets. Absolute path on the target."""
    tree: str
    """Absolute path of the tree that the program runs from; the source itself in place."""
    state_dir: str
    """The project's own folder on the workstation: history, scan cache, archive."""
    app: Mapping[str, Any] = field(default_factory=dict)
    """``AppConfig`` as JSON."""
    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    pull: tuple[str, ...] = ()
    watcher: str | None = None
    keep_count: int = 20
    keep_bytes: int = 512 * 1024 * 1024
