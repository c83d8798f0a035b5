"""Takes up into the source what the program wrote on the target, at the paths of ``pull``.

A target is not trusted with the source: every name that it sends is judged here before one byte is
written, and a target that sends one of them wrong has its session ended. A pull adds and changes,
it never removes: a tree that was wiped must not empty anybody's work.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hyperbox_agent.core.codec import decode_entries
from hyperbox_agent.core.entries import Change, Entry, Kind, Manifest
from hyperbox_agent.core.plan import after, validate_pulled
from hyperbox_agent.core.pulls import PullRules
from hyperbox_agent.core.reconcile import Conflict, merge
from hyperbox_agent.errors import AgentError, ApplyError, LinkLostError, ProtocolError
from hyperbox_agent.link.connection import Link
from hyperbox_agent.link.fields import Fields
from hyperbox_agent.link.messages import pack_manifest
from hyperbox_agent.link.paths import check_path
from hyperbox_agent.watch.source import Source
from hyperbox_devcontainer.errors import HostileTargetError
from hyperbox_devcontainer.session.sourcewriter import SourceWriter

TIMEOUT = 60.0
LARGEST = 64 << 20
"""Bytes of one file. What is bigger is no lock file and no migration, and is named instead."""

Exclusive = Callable[[Callable[[], Awaitable[bool]]], Awaitable[Any]]
"""Runs something while no generation is on its way."""

T = TypeVar("T")
Problem = Callable[[str, "str | None", "str | None"], None]


@dataclass(slots=True)
class Pulled:
    """What one look at the target led to."""

    taken: list[Change] = field(default_factory=list)
    """Written into the source."""
    agreed: dict[str, Entry] = field(default_factory=dict)
    """What both ends hold now and the target has not put down as ours."""


class Pulling:
    """The pull of one session. Lives on one event loop; one ``take`` at a time."""

    def __init__(self, rules: PullRules, target: str, source: Source, problem: Problem,
                 told: Callable[[Sequence[str]], None]) -> None:
        """``told`` hears of the paths that were taken up."""
        self.rules = rules
        self._target = target
        self._source = source
        self._problem = problem
        self._told = told
        self._turn = asyncio.Lock()
        self._some = asyncio.Event()

    def wake(self) -> None:
        """The target says that something was written."""
        self._some.set()

    async def run(self, link: Callable[[], Link], exclusive: Exclusive) -> None:
        """Take up whenever there is something, between generations, until cancelled.

        Raises HostileTargetError.
        """
        while True:
            await self._some.wait()
            self._some.clear()
            try:
                await exclusive(lambda: self.take(link()))
            except LinkLostError:
                continue  # Whoever connects anew asks anew.
            except AgentError as error:
                self._problem(f"nothing could be pulled from {self._target}: {error.message}",
                              error.file, error.hint)

    def concerns(self, changes: Iterable[Change]) -> bool:
        """Whether a batch writes where the program may have written meanwhile."""
        return any(self.rules(change.path, is_dir=_is_dir(change.new or change.old))
                   for change in changes)

    async def take(self, link: Link) -> bool:
        """Ask what was written and take it up; whether both ends agree on more than before.

        Raises HostileTargetError, AgentError.
        """
        async with self._turn:
            recorded, found = await self._ask(link)
            done = Pulled()
            await self._take_up(link, recorded, found, done)
            if done.agreed:
                await self._adopt(link, done.agreed)
            if done.taken:
                self._told([change.path for change in done.taken if not _is_dir(change.new)])
            return bool(done.agreed)

    async def _ask(self, link: Link) -> tuple[dict[str, Entry], dict[str, Entry]]:
        answer = await link.call("written", {}, timeout=TIMEOUT)
        raw = await answer.payload.read()
        size = Fields(answer.body, "written").number("recorded", most=len(raw))
        return self._judged(decode_entries(raw[:size])), self._judged(decode_entries(raw[size:]))

    # -- judging ------------------------------------------------------------------------------

    def _judged(self, entries: Sequence[Entry]) -> dict[str, Entry]:
        """The entries that count by path. Raises HostileTargetError after naming all that don't
        belong in any honest answer; what is only ignored here is left out."""
        good: dict[str, Entry] = {}
        refused = 0
        parents = {path for entry in entries for path in _parents(entry.path)}
        for entry in sorted(entries, key=lambda entry: entry.path):
            try:
                self._judge(entry, good, parents)
            except (ApplyError, ProtocolError) as error:
                refused += 1
                self._problem(f"{self._target} was refused a write to the source: "
                              f"{error.message}", entry.path, None)
        if refused:
            raise HostileTargetError(
                f"{self._target} tried to write where it must not, {refused} "
                f"{'times' if refused > 1 else 'time'}: the session ends, nothing was written",
                target=self._target, hint="look at what runs there before you trust it again")
        return {path: entry for path, entry in good.items() if not self._ignored(entry)}

    def _judge(self, entry: Entry, good: dict[str, Entry], parents: set[str]) -> None:
        change = Change(entry.path, None, entry)
        validate_pulled((change,), good)
        check_path(entry.path)
        leads = entry.kind is Kind.DIR and entry.path in parents
        if not leads and not self.rules(entry.path, is_dir=_is_dir(entry)):
            raise ApplyError(f"{entry.path!r} is not among what is pulled", file=entry.path)
        if entry.path in good:
            raise ApplyError(f"{entry.path!r} is named twice", file=entry.path)
        if entry.kind is Kind.LINK and _digest(os.fsencode(entry.target)) != entry.digest:
            raise ApplyError(f"the link {entry.path!r} is not what its digest says",
                             file=entry.path)
        good[entry.path] = entry

    def _ignored(self, entry: Entry) -> bool:
        return self._source.tree.reason(entry.path, is_dir=_is_dir(entry)) is not None

    # -- deciding -----------------------------------------------------------------------------

    async def _take_up(self, link: Link, recorded: Manifest, found: Manifest,
                       done: Pulled) -> None:
        here = {path: entry for path in {*recorded, *found}
                if (entry := self._source.tree.manifest.get(path)) is not None}
        decided = merge(recorded, here, found, found.__contains__)
        up = [change for change in decided.up if _adds(change)]
        try:
            validate_pulled(up, self._source.tree.manifest)
        except ApplyError as error:
            self._problem(f"what {self._target} wrote does not fit the source: {error.message}",
                          error.file, None)
            return
        for change in up:
            await self._take_one(link, change, done)
        for conflict in decided.conflicts:
            await self._keep_both(link, conflict)
        if done.taken:
            self._source.taken_up(done.taken)
        now = after(here, done.taken)
        for path, entry in found.items():
            was = recorded.get(path)
            if path in now and now[path].same(entry) and (was is None or not was.same(entry)):
                done.agreed[path] = entry

    async def _take_one(self, link: Link, change: Change, done: Pulled) -> None:
        content = await self._content(link, change.new)
        if content is not None and self._write(lambda writer: writer.write(change, content)):
            done.taken.append(change)

    async def _keep_both(self, link: Link, conflict: Conflict) -> None:
        theirs = conflict.target
        if theirs is None or theirs.kind is Kind.DIR:
            self._problem(f"{conflict.path} was changed on both ends; {self._target}'s version "
                          "stays there", conflict.path, None)
            return
        content = await self._content(link, theirs)
        if content is None:
            return
        beside = self._beside(conflict.path, theirs, content)
        if beside is not None:
            self._problem(
                f"{conflict.path} was changed on both ends: yours stays ({_short(conflict.source)})"
                f", {self._target}'s version ({_short(theirs)}) is in {beside}", conflict.path,
                f"put what you need of {beside} into {conflict.path} and remove it")

    def _beside(self, path: str, theirs: Entry, content: bytes) -> str | None:
        return self._write(lambda writer: writer.keep_beside(path, self._target, theirs, content))

    def _write(self, work: Callable[[SourceWriter], T]) -> T | None:
        """What ``work`` gives; None where it failed, which was named as a problem."""
        try:
            with SourceWriter(self._source.tree.root) as writer:
                return work(writer)
        except OSError as error:
            self._problem(f"what {self._target} wrote can't be written here: {error.strerror}",
                          error.filename if isinstance(error.filename, str) else None, None)
            return None

    async def _content(self, link: Link, entry: Entry | None) -> bytes | None:
        """The bytes of a file, as announced; None: it has changed since, or is too big.

        A change that comes of itself is told again, so nothing is lost by waiting for that.
        """
        if entry is None or entry.kind is not Kind.FILE:
            return b""
        if entry.size > LARGEST:
            self._problem(f"{entry.path} on {self._target} is too big to be pulled "
                          f"({entry.size:,} bytes)", entry.path, None)
            return None
        try:
            answer = await link.call("content", {"path": entry.path}, timeout=TIMEOUT)
        except ApplyError:
            return None  # It is gone again.
        content = await answer.payload.read(LARGEST)
        return content if _digest(content) == entry.digest else None

    async def _adopt(self, link: Link, agreed: Mapping[str, Entry]) -> None:
        await link.call("adopt", {}, pack_manifest(agreed), timeout=TIMEOUT)


def _adds(change: Change) -> bool:
    """A pull never removes, and never puts a file where a folder was or the other way round."""
    if change.new is None:
        return False
    return change.old is None or _is_dir(change.old) == _is_dir(change.new)


def _is_dir(entry: Entry | None) -> bool:
    return entry is not None and entry.kind is Kind.DIR


def _parents(path: str) -> Iterable[str]:
    at = path.rfind("/")
    while at > 0:
        yield path[:at]
        at = path.rfind("/", 0, at)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _short(entry: Entry | None) -> str:
    return "removed" if entry is None else entry.digest.hex()[:12]


