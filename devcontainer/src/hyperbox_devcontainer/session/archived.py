"""The base of a session in place: what went live is remembered here, beside the history."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.entries import Change
from hyperbox_agent.errors import AgentError
from hyperbox_agent.link.connection import Link
from hyperbox_agent.link.messages import Configured
from hyperbox_agent.watch.source import Source
from hyperbox_devcontainer.session.options import SessionOptions


class ArchiveBase:
    """Implements ``Base`` for a program that runs from the source itself."""

    def __init__(self, options: SessionOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._number = 0

    def number(self) -> int:
        """See Base."""
        return self._number

    async def learn(self, ready: Configured, link: Link) -> None:
        """In place the target holds nothing of its own."""

    def converge(self, ready: Configured, source: Source) -> tuple[Change, ...] | None:
        """See Base."""
        source.rebase(())
        return ()

    def committed(self, number: int, changes: tuple[Change, ...]) -> None:
        """See Base."""
        self._number = number

    def kept(self) -> list[int]:
        """See Base."""
        return []

    async def prepare_rollback(self, number: int) -> Mapping[str, Any]:
        """See Base."""
        raise AgentError(f"generation #{number} is not kept")

    async def rolled_back(self, number: int, source: Source) -> list[str]:
        """See Base."""
        return []

    def crashed(self, event: Mapping[str, Any]) -> None:
        """See Base."""

    async def run(self) -> None:
        """See Base."""
        await asyncio.Event().wait()

    def close(self) -> None:
        """See Base."""
