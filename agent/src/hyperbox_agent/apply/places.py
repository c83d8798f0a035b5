"""Where things lie in a home, by the seq of their batch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hyperbox_agent.home import make_private


@dataclass(frozen=True, slots=True)
class Places:
    """Paths below one home. In moves they are relative to it."""

    home: str

    def stage(self, seq: int) -> str:
        """What is about to go into the tree."""
        return f"{self.home}/stage/{seq}"

    def staged_record(self, seq: int) -> str:
        """The record that becomes the journal."""
        return f"{self.home}/stage/{seq}/record"

    def trash(self, seq: int) -> str:
        """What came out of the tree, until the batch is committed or undone."""
        return f"{self.home}/trash/{seq}"

    def kept(self, seq: int, path: str = "") -> str:
        """What came out of the tree and is not ours."""
        return f"{self.home}/kept/{seq}/{path}".rstrip("/")

    def has(self, path: str) -> bool:
        """Whether something stands at ``path``, relative to the home."""
        return os.path.lexists(f"{self.home}/{path}")

    def make(self) -> None:
        """The folders that are always there. Raises OSError."""
        for name in ("stage", "trash"):
            make_private(f"{self.home}/{name}")
