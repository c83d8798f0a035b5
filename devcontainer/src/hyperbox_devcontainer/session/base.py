"""What the target holds, as the session knows it: the base that the next changes are against."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from hyperbox_agent.core.entries import Change, Entry
from hyperbox_agent.core.plan import diff
from hyperbox_agent.link.connection import Link
from hyperbox_agent.link.messages import Configured, unpack_manifest
from hyperbox_agent.watch.source import Source

MANIFEST_TIMEOUT = 60.0
KEPT_TIMEOUT = 60.0


class Base(Protocol):
    """In place: our archive of generations. Mirrored: the target's own record."""

    def number(self) -> int:
        """The generation that changes are relative to; 0: nothing."""
        ...

    async def learn(self, ready: Configured, link: Link) -> None:
        """Ask the target what it holds, where that isn't known."""
        ...

    def converge(self, ready: Configured, source: Source) -> tuple[Change, ...] | None:
        """Tell the source what is live; gives the first generation's changes, or None where the
        program of an earlier session runs and is taken over."""
        ...

    def committed(self, number: int, changes: tuple[Change, ...]) -> None:
        """``changes`` are live as ``number``."""
        ...

    async def kept(self) -> list[int]:
        """The generations that one can go back to."""
        ...

    async def prepare_rollback(self, number: int) -> Mapping[str, Any]:
        """Make ready for going back; gives what the target must be told beside the number."""
        ...

    async def rolled_back(self, number: int, source: Source) -> list[str]:
        """``number`` is live again; gives the paths in which the source differs from it."""
        ...

    async def run(self) -> None:
        """Work in the background, until cancelled."""
        ...

    async def ended(self) -> None:
        """Nothing runs there any more."""
        ...

    def close(self) -> None:
        """Keep what must be kept."""
        ...


class MirrorBase:
    """The target's tree is the record; it is asked for once a link."""

    def __init__(self) -> None:
        self._number = 0
        self._held: Mapping[str, Entry] = {}
        self._link: Link | None = None

    def number(self) -> int:
        """See Base."""
        return self._number

    async def learn(self, ready: Configured, link: Link) -> None:
        """See Base."""
        self._link = link
        self._number = ready.number
        self._held = await self._manifest(link)

    async def _manifest(self, link: Link) -> Mapping[str, Entry]:
        answer = await link.call("manifest", {}, timeout=MANIFEST_TIMEOUT)
        return unpack_manifest(await answer.payload.read())

    def converge(self, ready: Configured, source: Source) -> tuple[Change, ...] | None:
        """See Base."""
        held, self._held = self._held, {}
        changes = diff(held, source.tree.manifest)
        source.rebase(changes)
        # A tree of another generation than the one that serves is one that is still to be started.
        return None if ready.adopted and ready.serving == ready.number else changes

    def committed(self, number: int, changes: tuple[Change, ...]) -> None:
        """See Base."""
        self._number = number

    async def kept(self) -> list[int]:
        """See Base. Which ones the target forgets depends on their size, so it is asked."""
        if self._link is None:
            return []
        answer = await self._link.call("kept", {}, timeout=KEPT_TIMEOUT)
        kept = answer.body.get("kept")
        return [item for item in kept if isinstance(item, int)] if isinstance(kept, list) else []

    async def prepare_rollback(self, number: int) -> Mapping[str, Any]:
        """The target has the content itself."""
        return {}

    async def rolled_back(self, number: int, source: Source) -> list[str]:
        """See Base."""
        if self._link is None:
            return []
        self._number = number
        changes = diff(await self._manifest(self._link), source.tree.manifest)
        source.rebase(changes)
        return [change.path for change in changes]

    async def run(self) -> None:
        """Nothing to do."""
        await asyncio.Event().wait()

    async def ended(self) -> None:
        """What the target built, the target removes."""

    def close(self) -> None:
        """The target keeps its own record."""
