"""What the program, or anybody else, did to the files that we put there."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hyperbox_agent.apply.folders import Folders, facts_of
from hyperbox_agent.core.entries import Entry, Kind, Manifest
from hyperbox_agent.store.born import birth
from hyperbox_agent.store.record import stamp


@dataclass(frozen=True, slots=True)
class Damage:
    """One entry that is not as it was put there."""

    path: str
    was: Entry
    now: Entry | None
    """What stands there; None: nothing, or nothing that could be an entry."""


def find_damage(root: Folders, manifest: Manifest, stamps: Mapping[str, int], *, modes: bool = True
                ) -> tuple[tuple[Damage, ...], dict[str, int]]:
    """What differs, and new stamps of files that were touched and are the same all the same.

    Two calls an entry; a file is read only where that says something new (content decides, not
    time). ``modes`` is whether the filesystem knows an executable bit. Raises OSError for a root
    that can't be read.
    """
    found: list[Damage] = []
    touched: dict[str, int] = {}
    for path, entry in manifest.items():
        facts, mark = _facts(root, path)
        if facts is not None and _as_put(entry, facts, mark, stamps.get(path), modes):
            continue
        mode = None if modes else entry.mode
        now = None if facts is None else look_at(root, path, facts, mode)
        if now is None or not now.same(entry):
            found.append(Damage(path, entry, now))
        elif entry.kind is not Kind.DIR:
            touched[path] = mark
    return tuple(found), touched


def _facts(root: Folders, path: str) -> tuple[os.stat_result | None, int]:
    """What ``stat`` says, and the stamp; of a folder that is 0."""
    try:
        folder, name = root.parent(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, 0
    facts = facts_of(name, folder)
    if facts is None or stat.S_ISDIR(facts.st_mode):
        return facts, 0
    return facts, stamp(facts, birth(name, folder))


def _as_put(entry: Entry, facts: os.stat_result, mark: int, known: int | None, modes: bool
            ) -> bool:
    if entry.kind is Kind.DIR:
        return stat.S_ISDIR(facts.st_mode)
    if modes and entry.kind is Kind.FILE and entry.executable != bool(facts.st_mode & 0o100):
        return False
    return mark == known


def look_at(root: Folders, path: str, facts: os.stat_result, mode: int | None) -> Entry | None:
    """The entry that stands at ``path`` now; ``mode`` instead of its own, if given."""
    mode = stat.S_IMODE(facts.st_mode) if mode is None else mode
    if stat.S_ISDIR(facts.st_mode):
        return Entry(path, Kind.DIR, mode)
    try:
        folder, name = root.parent(path)
        if stat.S_ISLNK(facts.st_mode):
            text = os.readlink(name, dir_fd=folder)
            digest = hashlib.sha256(os.fsencode(text)).digest()
            return Entry(path, Kind.LINK, mode, len(os.fsencode(text)), digest, text)
        if stat.S_ISREG(facts.st_mode):
            size, digest = digest_of(name, folder)
            return Entry(path, Kind.FILE, mode, size, digest)
    except OSError:
        return None  # Gone or closed to us since: either way not what was put there.
    return None


def digest_of(name: str, folder: int | None) -> tuple[int, bytes]:
    """Size and SHA-256 of the regular file ``name`` in ``folder``. Raises OSError."""
    hasher, size = hashlib.sha256(), 0
    for piece in _pieces(name, folder):
        hasher.update(piece)
        size += len(piece)
    return size, hasher.digest()


def read_file(name: str, folder: int | None) -> bytes:
    """The bytes of the regular file ``name`` in ``folder``. Raises OSError."""
    return b"".join(_pieces(name, folder))


def _pieces(name: str, folder: int | None) -> Iterator[bytes]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=folder)
    try:
        while piece := os.read(fd, 1 << 20):
            yield piece
    finally:
        os.close(fd)
