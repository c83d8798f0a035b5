"""What a batch took out of the tree: content that we know goes to the store, the rest is kept.

The rest is what the program wrote over a file of ours, or put where one of ours was to be. It is
never lost silently: it stands at ``<home>/kept/<seq>/<path>`` as long as that generation is kept.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hyperbox_agent.apply.damage import digest_of
from hyperbox_agent.apply.moves import Move
from hyperbox_agent.core.entries import Change, Kind
from hyperbox_agent.core.plan import Op
from hyperbox_agent.home import make_private
from hyperbox_agent.store.blobs import BlobStore
from hyperbox_agent.store.born import birth
from hyperbox_agent.store.ops import Ops, remove_tree
from hyperbox_agent.store.record import stamp


@dataclass(frozen=True, slots=True)
class Kept:
    """Something not ours that stood where the batch put or removed something."""

    path: str
    where: str
    """Absolute path of the file or folder that holds it now (from the commit on)."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What lies in a trash: files with the digest that they are said to have, and the rest."""

    known: tuple[tuple[bytes, str], ...]
    foreign: tuple[tuple[str, str], ...]
    """Path in the tree, and where it lies now."""


def sort_out(trash: str, moves: Sequence[Move], changes: Iterable[Change],
             stamps: Mapping[str, int] | None) -> Leftovers:
    """Look through ``trash``.

    ``stamps`` are those of the old entries; where they are not known any more (after a crash) every
    file is read. Raises OSError.
    """
    by_path = _by_path(changes, moves)
    known: list[tuple[bytes, str]] = []
    foreign: list[tuple[str, str]] = []
    for path, where in _files(trash, moves):
        known_stamp = None if stamps is None else stamps.get(path, 0)
        verdict = _judge(by_path.get(path), where, known_stamp)
        if verdict is None:
            foreign.append((path, where))
        elif verdict:
            known.append((verdict, where))
    return Leftovers(tuple(known), tuple(foreign))


def put_away(left: Leftovers, trash: str, kept: str, store: BlobStore, ops: Ops) -> None:
    """Move the known into the store and the rest to ``kept``; the trash is gone then.

    Can be repeated after a crash. Raises OSError.
    """
    for digest, where in left.known:
        store.adopt(digest, where)
    for path, where in left.foreign:
        target = _free_name(f"{kept}/{path}")
        make_private(os.path.dirname(target))
        ops.rename(where, target)
    remove_tree(ops, trash)


def _by_path(changes: Iterable[Change], moves: Iterable[Move]) -> dict[str, Change]:
    """The changes by the path that the old entry had when it was taken out: after respelling."""
    respelled = [(move.source, move.path) for move in moves if move.op is Op.RESPELL]
    out = {change.path: change for change in changes}
    for change in list(out.values()) if respelled else ():
        path = change.path
        for source, now in respelled:
            if path == source or path.startswith(source + "/"):
                path = now + path[len(source) :]
        if path != change.path and change.old is not None:
            twin = out.get(path)
            out[path] = Change(path, change.old, twin.new if twin else None)
    return out


def _files(trash: str, moves: Sequence[Move]) -> Iterable[tuple[str, str]]:
    """Every file or link below ``trash``, with the path that it had in the tree."""
    try:
        names = os.listdir(trash)
    except FileNotFoundError:
        return
    for name in names:
        index = name.rstrip("+")
        where = f"{trash}/{name}"
        path = moves[int(index)].path if index.isdigit() and int(index) < len(moves) else name
        if stat.S_ISDIR(os.lstat(where).st_mode):
            yield from _below(path, where)
        else:
            yield path, where


def _below(path: str, folder: str) -> Iterable[tuple[str, str]]:
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        inner = f"{path}/{entry.name.rstrip('+')}"
        if entry.is_dir(follow_symlinks=False):
            yield from _below(inner, entry.path)
        elif not entry.name.endswith(".pyc"):  # Derived, and worth nothing without its source.
            yield inner, entry.path


def _judge(change: Change | None, where: str, known_stamp: int | None) -> bytes | None:
    """The digest of what lies there; empty for what needs no keeping; None for what is not ours."""
    old, new = (None, None) if change is None else (change.old, change.new)
    facts = os.lstat(where)
    if stat.S_ISLNK(facts.st_mode):
        text = os.readlink(where)
        return b"" if any(entry is not None and entry.kind is Kind.LINK and entry.target == text
                          for entry in (old, new)) else None
    if not stat.S_ISREG(facts.st_mode):
        return None
    if old is not None and old.kind is Kind.FILE and stamp(facts, birth(where)) == known_stamp:
        return old.digest
    expected = {entry.digest for entry in (old, new)
                if entry is not None and entry.kind is Kind.FILE and entry.size == facts.st_size}
    digest = digest_of(where, None)[1] if expected else None
    return digest if digest in expected else None


def _free_name(path: str) -> str:
    name, number = path, 1
    while os.path.lexists(name):
        number += 1
        name = f"{path}~{number}"
    return name
