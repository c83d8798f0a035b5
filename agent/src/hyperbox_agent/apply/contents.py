"""Where a content is on this machine already: in the store, or in the tree under some path."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence

from hyperbox_agent.apply.damage import digest_of
from hyperbox_agent.apply.folders import Folders, facts_of
from hyperbox_agent.core.entries import Change, Entry, Kind, Manifest
from hyperbox_agent.store.blobs import BlobStore, verified_pieces

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Contents:
    """Finds contents by digest. What it says may be out of date; what it gives is verified."""

    def __init__(self, store: BlobStore, root: str) -> None:
        self._store = store
        self._root = root
        self._paths: dict[bytes, str] | None = None
        self._found: dict[bytes, str] = {}

    def forget(self) -> None:
        """The tree has changed in ways that were not told."""
        self._paths = None
        self._found = {}

    def moved(self, changes: Iterable[Change]) -> None:
        """The tree has changed by these."""
        if self._paths is not None:
            for change in changes:
                if change.new is not None and change.new.kind is Kind.FILE:
                    self._paths[change.new.digest] = change.path

    def missing(self, changes: Sequence[Change], tree: Manifest) -> tuple[bytes, ...]:
        """The digests that ``changes`` need and that are nowhere here, in the order of paths."""
        wanted: dict[bytes, Entry] = {}
        for change in changes:
            if change.new is not None and change.new.kind is Kind.FILE:
                wanted.setdefault(change.new.digest, change.new)
        self._found = {} if tree else self._look_at(wanted.values())
        return self.lacks(wanted, tree)

    def lacks(self, digests: Collection[bytes], tree: Manifest) -> tuple[bytes, ...]:
        """Those of ``digests`` that are nowhere here, in their order."""
        stored = self._store.which(digests)
        return tuple(digest for digest in digests
                     if digest not in stored and digest not in self._found
                     and self._path(digest, tree) is None)

    def pieces(self, digest: bytes, tree: Manifest) -> Iterator[bytes] | None:
        """The content, verified as it comes (MissingBlobsError at its end); None: not here."""
        if self._store.has(digest):
            return self._store.chunks(digest)
        path = self._found.get(digest) or self._path(digest, tree)
        if path is None:
            return None
        try:
            with Folders(self._root) as root:
                folder, name = root.parent(path)
                fd = os.open(name, _FLAGS, dir_fd=folder)
        except OSError:
            return None
        return verified_pieces(fd, digest)

    def _path(self, digest: bytes, tree: Manifest) -> str | None:
        if self._paths is None:
            self._paths = {entry.digest: path for path, entry in tree.items()
                           if entry.kind is Kind.FILE}
        path = self._paths.get(digest)
        if path is None:
            return None
        entry = tree.get(path)
        if entry is not None and entry.digest == digest:
            return path
        # That path holds another content now; one of the others may still have this one.
        found = next((path for path, entry in tree.items() if entry.digest == digest), None)
        if found is None:
            del self._paths[digest]
        else:
            self._paths[digest] = found
        return found

    def _look_at(self, entries: Iterable[Entry]) -> dict[bytes, str]:
        """A tree of which nothing is known may hold what is about to be sent: a clone, say."""
        found: dict[bytes, str] = {}
        try:
            with Folders(self._root) as root:
                if not os.listdir(root.root):
                    return found
                for entry in entries:
                    if _holds(root, entry):
                        found[entry.digest] = entry.path
        except OSError:
            pass  # What can't be read now is sent.
        return found


def _holds(root: Folders, entry: Entry) -> bool:
    try:
        folder, name = root.parent(entry.path)
        facts = facts_of(name, folder)
        if facts is None or not stat.S_ISREG(facts.st_mode) or facts.st_size != entry.size:
            return False
        return digest_of(name, folder)[1] == entry.digest
    except OSError:
        return False
