"""What the ops of the link say: frozen values with their JSON, checked when they are read.

A body is at most 1 MiB of JSON. What may be bigger travels as the payload, in the compact form of
``core.codec``: a manifest, and at the head of a generation's payload its changes, where they are
too many for the body; the bundle of blobs follows, see ``core.bundle``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hyperbox_agent.core.codec import (
    decode_changes,
    decode_entries,
    encode_changes,
    encode_entries,
)
from hyperbox_agent.core.entries import Change, Entry, Kind, Manifest
from hyperbox_agent.errors import ProtocolError
from hyperbox_agent.link.fields import Fields
from hyperbox_agent.link.paths import check_path
from hyperbox_agent.store.pruning import Keep

MODES = ("in-place", "mirror")
BASES = ("known", "new", "recreated")
INLINE = 300
"""A generation with more changes has them at the head of its payload: in JSON one costs some
50 µs on both ends together, in the compact form 5."""
LIST_LIMIT = 256 * 1024 * 1024
"""Unpacked bytes of a list of changes: some three million."""


@dataclass(frozen=True, slots=True)
class Configure:
    """``configure``: whose session this is and what it wants to have run."""

    session: str
    project: str
    mode: str
    """One of MODES."""
    root: str
    """Absolute path of the tree on the target."""
    app: Mapping[str, Any]
    """An ``AppConfig`` as its ``as_json`` gives it."""
    keep: Keep = field(default_factory=Keep)
    """What stays of the older generations of a mirrored tree."""
    pull: tuple[str, ...] = ()
    """Patterns of what a program may write back to the source."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As it crosses the link."""
        return {"session": self.session, "project": self.project, "mode": self.mode,
                "root": self.root, "app": dict(self.app), "keep_count": self.keep.count,
                "keep_bytes": self.keep.max_bytes, "pull": list(self.pull),
                "options": dict(self.options)}

    @classmethod
    def from_json(cls, data: object) -> Configure:
        """The inverse of ``as_json``. Raises ProtocolError."""
        read = Fields(data, "configure")
        root = read.text("root")
        if not root.startswith("/") or "\0" in root:
            raise ProtocolError("configure: root must be an absolute path", key="root")
        return cls(session=read.text("session"), project=read.text("project"),
                   mode=read.one_of("mode", MODES), root=root, app=read.table("app"),
                   keep=Keep(read.number("keep_count", Keep().count, least=1),
                             read.number("keep_bytes", Keep().max_bytes)),
                   pull=read.texts("pull", ()),
                   options=read.table("options", {}))


@dataclass(frozen=True, slots=True)
class Configured:
    """The answer to ``configure``: what the target is and has."""

    adopted: bool
    """The program was already running: this agent (or the one before it) kept it."""
    number: int
    """The last committed generation; 0: none."""
    state: str
    """One of BASES. ``new`` and ``recreated``: not a tree of this session, so push all of it and
    never take its absences for deletions."""
    serving: int | None = None
    """The number that answers now."""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As it crosses the link."""
        return {"adopted": self.adopted, "number": self.number, "state": self.state,
                "serving": self.serving, "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, data: object) -> Configured:
        """The inverse of ``as_json``. Raises ProtocolError."""
        read = Fields(data, "configured")
        return cls(adopted=read.flag("adopted"), number=read.number("number"),
                   state=read.one_of("state", BASES),
                   serving=_maybe_number(read, "serving"), facts=read.table("facts", {}))


@dataclass(frozen=True, slots=True)
class Wanted:
    """One change of a generation as it travels: the path and what is to stand there."""

    path: str
    new: Entry | None
    """None: nothing, the path is deleted."""
    was: Kind | None = None
    """What stood there in the session's base: in place the target has no record of its own."""

    def as_json(self) -> dict[str, Any]:
        """As it crosses the link."""
        out: dict[str, Any] = {
            "path": self.path, "new": None if self.new is None else entry_json(self.new)}
        return out if self.was is None else {**out, "was": self.was.value}

    def as_told(self) -> Change:
        """The change as the session sees it; of the old side only the kind is known."""
        old = None if self.was is None else Entry(self.path, self.was)
        return Change(self.path, old, self.new)

    @classmethod
    def from_json(cls, data: object) -> Wanted:
        """The inverse of ``as_json``. Raises ProtocolError."""
        read = Fields(data, "change")
        path = check_path(read.text("path"))
        new = read.maybe("new")
        was = read.one_of("was", ("", "file", "dir", "link"), "")
        return cls(path, None if new is None else entry_from_json(path, new),
                   Kind(was) if was else None)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """``generation``: a batch of changes against ``base`` that is to go live as ``number``."""

    number: int
    base: int
    """The number that the changes are relative to; 0: to nothing."""
    changes: tuple[Wanted, ...]
    settled: bool = True
    """False: ``settle`` or ``supersede`` will follow, don't go live before."""
    first: bool = False
    """The program isn't running yet: this is its start."""
    lowest: str = "nothing"
    highest: str = "rebuild"
    """Words of rungs that bound the pack's choice."""
    direction: str = "push"
    """The field for two-way: this version knows only ``push``."""
    ahead: int = 0
    """So many files were sent ahead and are part of it: only those are listed that are otherwise by
    now, or gone."""
    paths_pull: tuple[str, ...] = ()
    """Paths whose newer version on the target goes to the source and is not overwritten."""

    def pack(self) -> tuple[dict[str, Any], bytes]:
        """The body, and what the payload must begin with (empty where the body holds it all)."""
        body: dict[str, Any] = {
            "number": self.number, "base": self.base, "settled": self.settled,
            "first": self.first, "lowest": self.lowest, "highest": self.highest,
            "direction": self.direction, "ahead": self.ahead, "paths_pull": list(self.paths_pull)}
        if len(self.changes) <= INLINE:
            return {**body, "changes": [wanted.as_json() for wanted in self.changes]}, b""
        head = encode_changes([_told(wanted) for wanted in self.changes])
        return {**body, "listed": len(head)}, head

    @staticmethod
    def head_length(body: object) -> int:
        """How many bytes of the payload belong to ``unpack``'s ``head``."""
        return Fields(body, "generation").number("listed", 0, most=LIST_LIMIT)

    @classmethod
    def unpack(cls, body: object, head: bytes = b"") -> GenerationRequest:
        """The inverse of ``pack``. Raises ProtocolError; a path that leaves the root is one."""
        read = Fields(body, "generation")
        changes = _listed(head) if head else tuple(map(Wanted.from_json, read.items("changes")))
        if len({wanted.path for wanted in changes}) != len(changes):
            raise ProtocolError("generation: a path is named twice", key="changes")
        return cls(number=read.number("number", least=1), base=read.number("base"),
                   changes=changes, settled=read.flag("settled", True),
                   first=read.flag("first", False), lowest=read.text("lowest", "nothing"),
                   highest=read.text("highest", "rebuild"),
                   direction=read.one_of("direction", ("push",), "push"),
                   ahead=read.number("ahead", 0),
                   paths_pull=tuple(map(check_path, read.texts("paths_pull", ()))))

    @classmethod
    def of(cls, number: int, base: int, changes: Iterable[Change], *, settled: bool = True,
           first: bool = False, ahead: int = 0) -> GenerationRequest:
        """A request that carries ``changes``."""
        return cls(number, base, tuple(
            Wanted(change.path, change.new, change.old.kind if change.old else None)
            for change in changes),
                   settled=settled, first=first, ahead=ahead)

    def as_told(self) -> tuple[Change, ...]:
        """The changes as the session sees them."""
        return tuple(wanted.as_told() for wanted in self.changes)

    def against(self, base: Manifest) -> tuple[Change, ...]:
        """The changes with their old side. Deletions of what is not there are left out."""
        return tuple(Change(wanted.path, base.get(wanted.path), wanted.new)
                     for wanted in self.changes
                     if wanted.new is not None or wanted.path in base)


@dataclass(frozen=True, slots=True)
class SettleRequest:
    """``settle``: quiet has come, ``number`` may go live."""

    number: int

    def as_json(self) -> dict[str, Any]:
        """As it crosses the link."""
        return {"number": self.number}

    @classmethod
    def from_json(cls, data: object) -> SettleRequest:
        """The inverse of ``as_json``. Raises ProtocolError."""
        return cls(Fields(data, "settle").number("number", least=1))


@dataclass(frozen=True, slots=True)
class SupersedeRequest:
    """``supersede``: ``number`` must not go live; ``by`` is the one that follows (0: none yet)."""

    number: int
    by: int = 0

    def as_json(self) -> dict[str, Any]:
        """As it crosses the link."""
        return {"number": self.number, "by": self.by}

    @classmethod
    def from_json(cls, data: object) -> SupersedeRequest:
        """The inverse of ``as_json``. Raises ProtocolError."""
        read = Fields(data, "supersede")
        return cls(read.number("number", least=1), read.number("by", 0))


@dataclass(frozen=True, slots=True)
class RollbackRequest:
    """``rollback``: make the kept generation ``to`` live again, as generation ``number``."""

    number: int
    to: int

    def as_json(self) -> dict[str, Any]:
        """As it crosses the link."""
        return {"number": self.number, "to": self.to}

    @classmethod
    def from_json(cls, data: object) -> RollbackRequest:
        """The inverse of ``as_json``. Raises ProtocolError."""
        read = Fields(data, "rollback")
        return cls(read.number("number", least=1), read.number("to"))


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """``exec``: run a command beside the program."""

    argv: tuple[str, ...]
    tty: bool = False
    rows: int = 24
    cols: int = 80
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    """Relative to the root."""

    def as_json(self) -> dict[str, Any]:
        """As it crosses the link."""
        return {"argv": list(self.argv), "tty": self.tty, "rows": self.rows, "cols": self.cols,
                "env": dict(self.env), "cwd": self.cwd}

    @classmethod
    def from_json(cls, data: object) -> ExecRequest:
        """The inverse of ``as_json``. Raises ProtocolError."""
        read = Fields(data, "exec")
        argv = read.texts("argv")
        if not argv or any("\0" in word for word in argv):
            raise ProtocolError("exec: argv must hold at least one word and no NUL", key="argv")
        cwd = read.text("cwd", "")
        return cls(argv=argv, tty=read.flag("tty", False),
                   rows=read.number("rows", 24, least=1, most=65535),
                   cols=read.number("cols", 80, least=1, most=65535),
                   env=read.text_map("env", {}), cwd=check_path(cwd) if cwd else "")


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry without its path."""
    out: dict[str, Any] = {"k": entry.kind.value, "m": entry.mode}
    if entry.kind is Kind.FILE:
        out["s"] = entry.size
    if entry.digest:
        out["d"] = entry.digest.hex()
    if entry.kind is Kind.LINK:
        out["t"] = entry.target
    return out


def entry_from_json(path: str, data: object) -> Entry:
    """The inverse of ``entry_json`` for a path that was checked. Raises ProtocolError."""
    read = Fields(data, f"entry {path[:80]!r}")
    kind = Kind(read.one_of("k", ("file", "dir", "link")))
    target = read.text("t", "") if kind is Kind.LINK else ""
    return _sound(Entry(path, kind, read.number("m", 0o644), read.number("s", 0),
                        read.digest("d", b""), target))


def pack_manifest(manifest: Mapping[str, Entry]) -> bytes:
    """A manifest as a payload."""
    return encode_entries([manifest[path] for path in sorted(manifest)])


def unpack_manifest(raw: bytes) -> dict[str, Entry]:
    """The inverse of ``pack_manifest``. Raises ProtocolError, also for paths outside the root."""
    manifest: dict[str, Entry] = {}
    for entry in decode_entries(raw):
        if check_path(entry.path) in manifest:
            raise ProtocolError(f"manifest: {entry.path[:80]!r} is named twice", file=entry.path)
        manifest[entry.path] = _sound(entry)
    return manifest


def _told(wanted: Wanted) -> Change:
    # A change without any side is none: what is deleted was something, a file for all we know.
    told = wanted.as_told()
    return told if told.old or told.new else Change(
        wanted.path, Entry(wanted.path, Kind.FILE), None)


def _listed(head: bytes) -> tuple[Wanted, ...]:
    wanted = []
    for change in decode_changes(head):
        check_path(change.path)
        new = None if change.new is None else _sound(change.new)
        wanted.append(Wanted(change.path, new, change.old.kind if change.old else None))
    return tuple(wanted)


def _sound(entry: Entry) -> Entry:
    """``entry`` if it makes sense. Raises ProtocolError."""
    what = f"entry {entry.path[:80]!r}"
    if (entry.kind is Kind.DIR) == bool(entry.digest):
        raise ProtocolError(f"{what}: files and links have a digest, folders none",
                            key="d", file=entry.path)
    if entry.kind is Kind.LINK and (not entry.target or "\0" in entry.target):
        raise ProtocolError(f"{what}: a link without a text", key="t", file=entry.path)
    if entry.mode > 0o7777:
        raise ProtocolError(f"{what}: a mode of {entry.mode:o}", key="m", file=entry.path)
    return entry


def _maybe_number(read: Fields, key: str) -> int | None:
    return None if read.maybe(key) is None else read.number(key)


__all__ = [
    "BASES", "MODES", "Configure", "Configured", "ExecRequest", "GenerationRequest",
    "RollbackRequest", "SettleRequest", "SupersedeRequest", "Wanted", "entry_from_json",
    "entry_json", "pack_manifest", "unpack_manifest",
]
