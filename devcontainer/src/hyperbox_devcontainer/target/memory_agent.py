"""An agent in memory: a tree as a dict, behind the same ops, with hooks for what targets do wrong.

It is the other side of a session in tests of what is hard to stage with a real target: one that
was emptied or recreated under its name, one that lies, one that goes silent in the middle.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core import delta
from hyperbox_agent.core.bundle import read_blobs
from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.codec import encode_entries
from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.generation import Failure, Outcome, Verdict
from hyperbox_agent.core.plan import after, first_batch, validate
from hyperbox_agent.core.pulls import PullRules
from hyperbox_agent.errors import (
    AgentError,
    ApplyError,
    BaseChangedError,
    MissingBlobsError,
    StoreError,
)
from hyperbox_agent.link.ahead import Files, ahead_op
from hyperbox_agent.link.connection import Link, Reply, Request
from hyperbox_agent.link.messages import (
    Configure,
    Configured,
    GenerationRequest,
    RollbackRequest,
    SettleRequest,
    SupersedeRequest,
    pack_manifest,
    unpack_manifest,
)
from hyperbox_agent.link.pulls import pack_written
from hyperbox_agent.link.serving import Handler
from hyperbox_agent.link.stream import ByteStream
from hyperbox_agent.link.version import VERSION
from hyperbox_devcontainer.target.memory import Call
from hyperbox_langpacks.base import Rung

HELLO_TIMEOUT = 10.0
Judge = Callable[[Mapping[str, Entry]], "str | None"]
"""What a gate says about a tree: None, or what is wrong."""


class MemoryAgent:
    """One target's agent. ``program`` is what a MemoryTarget runs; state outlives its links."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.tree: dict[str, Entry] = {}
        self.store: dict[bytes, bytes] = {}
        """Contents by digest."""
        self.generations: dict[int, dict[str, Entry]] = {}
        self.number = 0
        self.serving: int | None = None
        self.ahead: dict[str, Entry] = {}
        """What was sent ahead of the first generation."""
        self.marker: str | None = None
        """The session that filled the tree."""
        self.configured: Configure | None = None
        self.foreign: dict[str, Entry] = {}
        """What stood there when the target turned out to be a new one: kept, and nobody's base."""
        self.stopped = False
        self.asked: list[str] = []
        """The ops that were called, in order."""
        self.judge: Judge = lambda tree: None
        self.links: list[Link] = []
        self._clock = clock or SystemClock()
        self._instead: dict[str, Handler] = {}
        self._closing: list[asyncio.Task[None]] = []
        self._decided: dict[int, asyncio.Future[bool]] = {}

    # -- hooks --------------------------------------------------------------------------------

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """A file that stands in the tree, whoever put it there. Parents are made."""
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            self.tree.setdefault(parent, Entry(parent, Kind.DIR, 0o755))
        digest = hashlib.sha256(content).digest()
        self.store[digest] = content
        self.tree[path] = Entry(path, Kind.FILE, mode, len(content), digest)

    def content(self, path: str) -> bytes:
        """The bytes of a file of the tree."""
        return self.store[self.tree[path].digest]

    def wipe(self) -> None:
        """Somebody emptied the tree: what the agent remembers of it is wrong now."""
        self.tree.clear()

    def recreate(self, files: Mapping[str, bytes] | None = None) -> None:
        """A new place under the old name, with what its image brings. No memory of the old one."""
        self.tree.clear()
        self.store.clear()
        self.generations.clear()
        self.foreign.clear()
        self.ahead.clear()
        self.number, self.serving, self.marker, self.configured = 0, None, None, None
        for path, content in (files or {}).items():
            self.write(path, content)

    def answer(self, op: str, handler: Handler) -> None:
        """Answer ``op`` in another way: a lie, an error, never."""
        self._instead[op] = handler

    def lie(self, entries: Iterable[Entry]) -> None:
        """``manifest`` answers with these entries, whatever their paths are."""
        listed = encode_entries(list(entries))

        async def lying(request: Request) -> Reply:
            return Reply({}, listed)

        self.answer("manifest", lying)

    def lie_written(self, entries: Iterable[Entry]) -> None:
        """``written`` answers with these entries, whatever their paths are."""
        listed = encode_entries(list(entries))

        async def lying(request: Request) -> Reply:
            recorded = pack_manifest({})
            return Reply({"recorded": len(recorded)}, recorded + listed)

        self.answer("written", lying)

    async def tell(self, op: str, body: Mapping[str, Any]) -> None:
        """A notification to the newest session."""
        await self.links[-1].notify(op, body)

    # -- the agent ----------------------------------------------------------------------------

    async def program(self, call: Call, stream: ByteStream) -> int:
        """Serve one link until it ends: register it as a program of the memory target."""
        link = Link(stream, role="agent", clock=self._clock)
        for op, handler in self._ops().items():
            link.handle(op, self._noting(op, handler))
        try:
            await link.start({"version": VERSION}, HELLO_TIMEOUT)
        except AgentError as error:
            call.err += error.message.encode()
            return 1
        older, self.links = self.links, [link]
        for one in older:
            await one.close("a newer session took over")
        await link.closed
        for waiting in self._decided.values():
            _decide(waiting, False)
        return 0

    def _ops(self) -> Mapping[str, Handler]:
        return {"configure": self._configure, "manifest": self._manifest,
                "missing": self._missing, "ahead": ahead_op(self._take_ahead),
                "generation": self._generation, "settle": self._settle,
                "supersede": self._supersede, "kept": self._kept, "rollback": self._rollback,
                "status": self._status, "stop": self._stop,
                "written": self._written, "content": self._content, "adopt": self._adopt}

    def _noting(self, op: str, handler: Handler) -> Handler:
        def noted(request: Request) -> Awaitable[Reply | Mapping[str, Any] | None]:
            self.asked.append(op)
            return self._instead.get(op, handler)(request)

        return noted

    async def _configure(self, request: Request) -> Mapping[str, Any]:
        asked = Configure.from_json(request.body)
        state = self._state(asked.session)
        if state != "known":
            # What stands there is not ours to compare with: it is neither base nor deletion.
            if state == "recreated":
                self.foreign, self.tree = {**self.foreign, **self.tree}, {}
            self.generations, self.number, self.serving = {}, 0, None
            self.marker = asked.session
        adopted = self.serving is not None
        self.configured = asked
        return Configured(adopted, self.number, state, self.serving,
                          {"foreign": self._foreign_files()}).as_json()

    def _foreign_files(self) -> list[str]:
        return sorted(path for path, entry in self.foreign.items()
                      if entry.kind is not Kind.DIR and path not in self.tree)

    def _state(self, session: str) -> str:
        if self.marker is None:
            return "recreated" if self.tree else "new"
        recorded = self.generations.get(self.number, {})
        emptied = bool(recorded) and not self.tree
        return "recreated" if self.marker != session or emptied else "known"

    async def _manifest(self, request: Request) -> Reply:
        return Reply({}, pack_manifest(self.tree))

    async def _missing(self, request: Request) -> Reply:
        asked = await request.payload.read()
        digests = [asked[at:at + 32] for at in range(0, len(asked), 32)]
        return Reply({}, b"".join(one for one in digests if one not in self.store))

    async def _generation(self, request: Request) -> Mapping[str, Any]:
        number = int(request.body.get("number", 0))
        decided = self._decided.setdefault(number, asyncio.get_running_loop().create_future())
        head = await request.payload.exactly(GenerationRequest.head_length(request.body))
        asked = GenerationRequest.unpack(request.body, head)
        if asked.base != self.number:
            raise BaseChangedError(f"the target holds #{self.number}, not #{asked.base}",
                                   base=asked.base, holds=self.number)
        if asked.settled:
            _decide(decided, True)
        async for digest, record in read_blobs(request.payload):
            self._take(digest, record)
        changes = self._changes(asked)
        validate(changes, self.tree)
        self._check_content(changes)
        try:
            return (await self._run(asked.number, changes, decided)).as_json()
        finally:
            self._decided.pop(number, None)

    def _changes(self, asked: GenerationRequest) -> tuple[Change, ...]:
        ahead, self.ahead = self.ahead, {}
        if asked.ahead:
            return first_batch(ahead, asked.ahead, asked.as_told())
        return asked.against(self.tree)

    async def _take_ahead(self, files: Files) -> None:
        for entry, data in files:
            self._keep(entry.digest, bytes(data))
            self.ahead[entry.path] = entry

    async def _run(self, number: int, changes: tuple[Change, ...],
                   decided: asyncio.Future[bool]) -> Outcome:
        tree = after(self.tree, changes)
        wrong = self.judge(tree)
        if not await asyncio.shield(decided):
            return Outcome(number, Verdict.SUPERSEDED, Rung.NOTHING, "a newer save came",
                           serving=self.serving)
        if wrong is not None:
            return Outcome(number, Verdict.ROLLED_BACK, Rung.NOTHING, "the gate found an error",
                           error=Failure("gate", wrong), serving=self.serving)
        self._commit(number, tree)
        return Outcome(number, Verdict.COMMITTED, Rung.COLD, "a memory agent always starts anew",
                       serving=number)

    def _take(self, digest: bytes, record: bytes) -> None:
        base = delta.old_digest(record)
        if base is not None and base not in self.store:
            raise MissingBlobsError("the base of a delta is not here", digests=(base,))
        self._keep(digest, delta.decode(record, None if base is None else self.store[base]))

    def _keep(self, digest: bytes, content: bytes) -> None:
        if hashlib.sha256(content).digest() != digest:
            raise StoreError(f"a blob is not what its digest {digest.hex()[:12]} says")
        self.store[digest] = content

    def _check_content(self, changes: Iterable[Change]) -> None:
        absent = [change.new.digest for change in changes
                  if change.new is not None and change.new.kind is Kind.FILE
                  and change.new.digest not in self.store]
        if absent:
            raise MissingBlobsError(f"{len(absent)} contents did not come",
                                    digests=tuple(absent))

    def _commit(self, number: int, tree: dict[str, Entry]) -> None:
        self.tree = tree
        self.number = self.serving = number
        self.generations[number] = dict(tree)

    async def _settle(self, request: Request) -> None:
        self._word(SettleRequest.from_json(request.body).number, True)

    async def _supersede(self, request: Request) -> None:
        self._word(SupersedeRequest.from_json(request.body).number, False)

    def _word(self, number: int, live: bool) -> None:
        waiting = self._decided.get(number)
        if waiting is not None:
            _decide(waiting, live)

    async def _kept(self, request: Request) -> Mapping[str, Any]:
        return {"kept": sorted(self.generations)}

    async def _rollback(self, request: Request) -> Mapping[str, Any]:
        asked = RollbackRequest.from_json(request.body)
        kept = self.generations.get(asked.to)
        if kept is None:
            raise ApplyError(f"generation {asked.to} is not kept here",
                             hint=f"kept: {', '.join(map(str, sorted(self.generations)))}")
        self._commit(asked.number, dict(kept))
        return Outcome(asked.number, Verdict.COMMITTED, Rung.COLD, f"back to {asked.to}",
                       serving=asked.number).as_json()

    async def _written(self, request: Request) -> Reply:
        rules = PullRules(self.configured.pull if self.configured else ())
        recorded = self.generations.get(self.number, {})
        return pack_written(_pulled(recorded, rules), _pulled(self.tree, rules))

    async def _content(self, request: Request) -> Reply:
        path = str(request.body.get("path"))
        if path not in self.tree:
            raise ApplyError(f"{path!r} is not there", file=path)
        return Reply({}, self.content(path))

    async def _adopt(self, request: Request) -> Mapping[str, Any]:
        if self.number:
            recorded = self.generations[self.number]
            recorded.update(unpack_manifest(await request.payload.read()))
        return {}

    async def _status(self, request: Request) -> Mapping[str, Any]:
        return {"configured": self.configured is not None, "number": self.number,
                "serving": self.serving, "files": len(self.tree)}

    async def _stop(self, request: Request) -> Mapping[str, Any]:
        self.stopped, self.serving = True, None
        # The answer goes out first: closing is a task, and tasks begin after this one's step.
        self._closing = [asyncio.ensure_future(link.close("the agent ends")) for link in self.links]
        return {"ended": self.configured is not None}


def _pulled(tree: Mapping[str, Entry], rules: PullRules) -> dict[str, Entry]:
    """What of a tree is pulled, with the folders above."""
    part = {path: entry for path, entry in tree.items()
            if rules(path, is_dir=entry.kind is Kind.DIR)}
    for path in list(part):
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            part.setdefault(parent, Entry(parent, Kind.DIR, 0o755))
    return part


def _decide(waiting: asyncio.Future[bool], live: bool) -> None:
    if not waiting.done():
        waiting.set_result(live)
