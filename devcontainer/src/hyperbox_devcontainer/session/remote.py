"""The target's agent as the pipeline sees it: generations become calls over the link."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet

from hyperbox_agent.core import delta
from hyperbox_agent.core.bundle import pack_blobs
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.generation import Outcome, Verdict
from hyperbox_agent.errors import AgentError, BaseChangedError, MissingBlobsError, WatchError
from hyperbox_agent.link.connection import Link
from hyperbox_agent.link.messages import GenerationRequest, SettleRequest, SupersedeRequest
from hyperbox_agent.supervise.pipeline import Shipped
from hyperbox_devcontainer.session.ahead import Ahead
from hyperbox_langpacks.base import Rung

ASK_ABOVE = 256 * 1024
"""Bytes of new content above which one more round trip asks what the target already has."""

ONE_WRITE = 48 * 1024
FEW = 64
"""Batches of at most this many files are edits; their content is remembered for the next delta."""

ReadContent = Callable[[Entry], bytes]
"""The bytes of a source file. Raises WatchError when it is no longer that content."""


class RemoteAgent:
    """One link's generations. In place nothing is shipped; mirrored, content travels along."""

    def __init__(self, link: Link, read: ReadContent | None, base: Callable[[], int], *,
                 doubt: Callable[[str], None], compress: bool,
                 learn: Callable[[], Awaitable[None]],
                 before: Callable[[tuple[Change, ...]], Awaitable[None]] | None = None,
                 ahead: Ahead | None = None) -> None:
        """``read``: None in place. ``base``: the number that the target's tree holds. ``doubt`` is
        told of files that changed since they were hashed. ``compress``: whether the way is slow
        enough for it to pay. ``learn`` asks anew what the target holds. ``before`` comes ahead of
        each batch that is shipped, while it can be superseded already. ``ahead``: what was sent
        while the source was read."""
        self._link = link
        self._read = read
        self._base = base
        self._doubt = doubt
        self._compress = compress
        self._learn = learn
        self._before = before
        self._ahead = ahead
        self._recent = Recent()
        self._asking: int | None = None
        self._said: Verdict | None = None
        """What was said about ``_asking`` before its call was made."""
        self._corrected = False
        """The last one was against what the target no longer holds: the next one knows better."""
        self._lacking: set[bytes] = set()
        """Contents that the target only seemed to have."""

    async def generation(self, number: int, changes: tuple[Change, ...], *, settled: bool,
                         first: bool) -> Shipped:
        """Ship and run one generation. Raises LinkLostError, or what the target refused.

        Where the target holds something else than we believe, another generation or a file that its
        program overwrote, that is learned and this generation counts as superseded: the next one is
        against the truth.
        """
        try:
            shipped = await self._ship(number, changes, settled=settled, first=first)
        except (BaseChangedError, MissingBlobsError) as error:
            self._corrected = not self._corrected
            if not self._corrected:
                raise  # what it says that it holds, and what it takes, are two things
            if isinstance(error, MissingBlobsError):
                self._lacking.update(error.digests)
            else:
                await self._learn()
            return _superseded(number, error.message)
        self._corrected = False
        self._lacking.clear()
        return shipped

    async def _end_ahead(self) -> int:
        """The target has made use of it, or can't any more. Gives the bytes that were sent."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return 0
        await ahead.close()
        return ahead.bytes

    async def _ship(self, number: int, changes: tuple[Change, ...], *, settled: bool,
                    first: bool) -> Shipped:
        if self._read is None:
            body, head = GenerationRequest.of(number, self._base(), changes, settled=settled,
                                              first=first).pack()
            answer = await self._link.call("generation", body, head, timeout=None)
            return Shipped(Outcome.from_json(answer.body), 0)
        self._asking, self._said = number, None
        try:
            if self._before is not None:
                await self._before(changes)
            sent = {} if self._ahead is None else await self._ahead.sent()
            listed = _otherwise(changes, sent)
            wanted = await self._wanted(listed)
        finally:
            self._asking, said = None, self._said
        if said is Verdict.SUPERSEDED:
            return _superseded(number, "a newer save came")
        body, head = GenerationRequest.of(
            number, self._base(), listed, settled=settled or said is Verdict.COMMITTED,
            first=first, ahead=len(sent)).pack()
        shipment = _Shipment(self._read, wanted, self._recent, self._lacking,
                             compress=self._compress)
        try:
            payload = shipment.whole(head) if shipment.small else shipment.stream(head)
            answer = await self._link.call("generation", body, payload, timeout=None)
        except AgentError:
            if shipment.stale is None:
                raise
        finally:
            before = await self._end_ahead()
        if shipment.stale is None:
            return Shipped(Outcome.from_json(answer.body), before + shipment.sent)
        self._doubt(shipment.stale)
        return _superseded(number, f"{shipment.stale} changed while it was shipped")

    async def _wanted(self, changes: Iterable[Change]) -> list[Change]:
        """The changes whose content must travel: each content once, and none that is there."""
        fresh: dict[bytes, Change] = {}
        for change in changes:
            new = change.new
            if new is not None and new.kind is Kind.FILE and (
                    new.digest in self._lacking or not _only_mode(change)):
                fresh.setdefault(new.digest, change)
        if sum(change.new.size for change in fresh.values() if change.new) <= ASK_ABOVE:
            return list(fresh.values())
        answer = await self._link.call("missing", {}, b"".join(fresh), timeout=60.0)
        said = await answer.payload.read()
        missing = self._lacking.union(said[at:at + 32] for at in range(0, len(said), 32))
        return [change for digest, change in fresh.items() if digest in missing]

    async def settle(self, number: int) -> None:
        """The batch is complete."""
        if number == self._asking:
            # The target has not heard of it yet: its call will say so.
            self._said = Verdict.COMMITTED
            return
        await self._link.call("settle", SettleRequest(number).as_json(), timeout=30.0)

    async def supersede(self, number: int) -> None:
        """The batch is out of date."""
        if number == self._asking:
            self._said = Verdict.SUPERSEDED
            return
        await self._link.call("supersede", SupersedeRequest(number).as_json(), timeout=30.0)


def _superseded(number: int, why: str) -> Shipped:
    return Shipped(Outcome(number, Verdict.SUPERSEDED, Rung.NOTHING, why), 0)


def _only_mode(change: Change) -> bool:
    return (change.old is not None and change.new is not None
            and change.old.digest == change.new.digest)


def _otherwise(changes: tuple[Change, ...], sent: Mapping[str, Entry]) -> tuple[Change, ...]:
    """The changes that what was sent does not say; of what is gone since, that it is gone."""
    if not sent:
        return changes
    gone = sent.keys() - {change.path for change in changes}
    return (*(change for change in changes if not _is_in(sent, change.new)),
            *(Change(path, sent[path], None) for path in gone))


def _is_in(sent: Mapping[str, Entry], entry: Entry | None) -> bool:
    found = None if entry is None else sent.get(entry.path)
    return found is not None and entry is not None and found.same(entry)


class Recent:
    """Content that was shipped lately, so that the next edit of it can go as a delta."""

    LIMIT = 8 * 1024 * 1024

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0

    def put(self, digest: bytes, content: bytes) -> None:
        """Remember ``content`` as the newest; the oldest go when there is too much."""
        if digest in self._kept or len(content) > self.LIMIT // 4:
            return
        self._kept[digest] = content
        self._size += len(content)
        while self._size > self.LIMIT:
            _, gone = self._kept.popitem(last=False)
            self._size -= len(gone)

    def get(self, digest: bytes) -> bytes | None:
        """The content, if it is still remembered."""
        return self._kept.get(digest)


class _Shipment:
    """Reads, encodes and counts the content of one generation while it is sent."""

    def __init__(self, read: ReadContent, wanted: list[Change], recent: Recent,
                 lacking: AbstractSet[bytes], *, compress: bool) -> None:
        """``lacking``: what the target can't make a new content of."""
        self._read = read
        self._wanted = wanted
        self._recent = recent
        self._lacking = lacking
        self._compress = compress
        self.sent = 0
        self.stale: str | None = None
        """The file that was no longer what the batch says."""

    @property
    def small(self) -> bool:
        """Whether it is worth gathering: call and content then leave in one write."""
        return sum(change.new.size for change in self._wanted if change.new) <= ONE_WRITE

    def whole(self, head: bytes) -> bytes:
        """The payload at once. Raises WatchError for a file that changed since it was hashed."""
        payload = head + b"".join(pack_blobs(self._records()))
        self.sent = len(payload) - len(head)
        return payload

    async def stream(self, head: bytes) -> AsyncIterator[bytes]:
        """The payload: the listed changes, then the bundle of blobs."""
        if head:
            yield head
        for piece in pack_blobs(self._records()):
            self.sent += len(piece)
            yield piece
            # Reading and compressing are done in place; the loop gets its turn between pieces.
            await asyncio.sleep(0)

    def _records(self) -> Iterable[tuple[bytes, bytes]]:
        few = len(self._wanted) <= FEW
        for change in self._wanted:
            new = change.new
            if new is None:
                continue
            try:
                content = self._read(new)
            except WatchError:
                self.stale = change.path
                raise
            old = change.old.digest if change.old is not None else b""
            before = None if old in self._lacking else self._recent.get(old)
            yield new.digest, delta.encode(content, before, old, compress=self._compress)
            if few:
                self._recent.put(new.digest, content)
