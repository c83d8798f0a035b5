"""What a session must know, as one frozen value. ``config/`` makes it from files and flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hyperbox_agent.store.pruning import Keep


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
    keep: Keep = field(default_factory=Keep)
    """What stays of the older generations, here (in place) or on the target."""

    @property
    def compress(self) -> bool:
        """Whether the way to the target is slow enough for it to pay."""
        return self.kind != "process"
