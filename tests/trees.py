"""Trees for tests: written down as values, put on a disk, read back; and a disk that dies.

A tree is a mapping of path to what is there: bytes for a file, ``Exe(bytes)`` for one that may be
executed, ``Link(text)``, and ``None`` for a folder with nothing in it. Folders that hold something
need not be named.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st

from hyperbox_agent.core.entries import Entry, Kind
from hyperbox_agent.store.ops import Ops


class Exe(bytes):
    """The bytes of a file that its owner may execute."""


class Link(str):
    """The text of a link."""

    __slots__ = ()


Files = Mapping[str, "bytes | Exe | Link | None"]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def entry_of(path: str, what: bytes | Exe | Link | None) -> Entry:
    if what is None:
        return Entry(path, Kind.DIR, 0o755)
    if isinstance(what, Link):
        text = os.fsencode(what)
        return Entry(path, Kind.LINK, 0o777, len(text), sha(text), str(what))
    mode = 0o755 if isinstance(what, Exe) else 0o644
    return Entry(path, Kind.FILE, mode, len(what), sha(what))


def manifest_of(files: Files) -> dict[str, Entry]:
    """The manifest, with the folders above each path."""
    out: dict[str, Entry] = {}
    for path, what in files.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            out.setdefault(folder, entry_of(folder, None))
        out[path] = entry_of(path, what)
    return out


def blobs_of(*trees: Files) -> dict[bytes, bytes]:
    """Every content of the trees by digest."""
    return {sha(what): bytes(what) for files in trees for what in files.values()
            if isinstance(what, bytes)}


def put(root: str, files: Files) -> None:
    """Write ``files`` below ``root`` as a user would."""
    os.makedirs(root, exist_ok=True)
    for path, what in files.items():
        place = os.path.join(root, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if what is None:
            os.makedirs(place, exist_ok=True)
        elif isinstance(what, Link):
            os.symlink(what, place)
        else:
            with open(place, "wb") as file:
                file.write(what)
            os.chmod(place, 0o755 if isinstance(what, Exe) else 0o644)


def look(root: str) -> dict[str, bytes | Exe | Link | None]:
    """What is below ``root`` now, every folder included."""
    out: dict[str, bytes | Exe | Link | None] = {}
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            place = os.path.join(folder, name)
            path = os.path.relpath(place, root)
            facts = os.lstat(place)
            if stat.S_ISLNK(facts.st_mode):
                out[path] = Link(os.readlink(place))
            elif stat.S_ISDIR(facts.st_mode):
                out[path] = None
            else:
                with open(place, "rb") as file:
                    data = file.read()
                out[path] = Exe(data) if facts.st_mode & 0o100 else data
    return out


def whole(files: Files) -> dict[str, bytes | Exe | Link | None]:
    """``files`` as ``look`` would give it: with its folders."""
    return {path: None if entry.kind is Kind.DIR else files[path]
            for path, entry in manifest_of(files).items()}


def same_tree(one: Files, other: Files, *, modes: bool = True) -> bool:
    """Equal as content: path, kind, bytes, executable bit if the filesystem has ``modes``."""
    if not modes:
        return dict(one) == dict(other)
    return {path: (type(what), what) for path, what in one.items()} == {
        path: (type(what), what) for path, what in other.items()}


@contextmanager
def quick_folder() -> Iterator[str]:
    """A folder in memory where there is one: ext4 creates files slowly after many were deleted.

    (It does not use an inode again within seconds of its deletion, and looks at each of those.)
    """
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = tempfile.mkdtemp(prefix="hb-tree-", dir=base)
    try:
        yield path
    finally:
        shutil.rmtree(path)


# ------------------------------------------------------------------------------- a disk that dies

CALLS = ("open", "rename", "link", "symlink", "unlink", "rmdir", "mkdir", "chmod", "write",
         "exchange")


class Crash(BaseException):
    """The process was killed here. No handler of ours may catch it."""


class WatchedOps(Ops):
    """Calls ``before(number, name)`` and ``after()`` around each change of the disk.

    Flushes are left out: these tests kill processes, not machines.
    """

    def __init__(self, before: Callable[[int, str], None] = lambda number, name: None,
                 after: Callable[[], None] = lambda: None) -> None:
        self.calls = 0
        self._before = before
        self._after = after
        for name in CALLS:
            setattr(self, name, self._watched(name, getattr(self, name)))
        self.fdatasync = lambda fd: None  # type: ignore[method-assign, assignment]

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            self._before(self.calls, name)
            result = real(*args, **options)
            self._after()
            return result

        return call


class FailingOps(WatchedOps):
    """Answers one call with an error, an I/O error unless told otherwise."""

    def __init__(self, code: int = errno.EIO) -> None:
        self._code = code
        self._fail_at = 0
        self.failed = False
        super().__init__(self._fail)

    def fail_in(self, calls: int) -> None:
        """The call that many calls from now fails."""
        self._fail_at = self.calls + calls

    def _fail(self, number: int, name: str) -> None:
        if number == self._fail_at:
            self.failed = True
            raise OSError(self._code, os.strerror(self._code))


class DyingOps(WatchedOps):
    """Dies at call ``at``; a write is half done then. Whatever is tried afterwards fails too."""

    def __init__(self, at: int) -> None:
        self._at = at
        super().__init__(self._die)
        whole_write = self.write

        def write(fd: int, data: bytes) -> int:
            if self.calls + 1 == self._at:
                os.write(fd, bytes(data)[: len(data) // 2])
            return int(whole_write(fd, data))

        self.write = write  # type: ignore[method-assign, assignment]

    def _die(self, number: int, name: str) -> None:
        if number >= self._at:
            raise Crash


# --------------------------------------------------------------------------------- random trees

_NAMES = ("a", "b", "c.py", "d é", "new\nline")
_PATHS = [*_NAMES, *(f"{one}/{two}" for one in _NAMES for two in _NAMES),
          *(f"{one}/{two}/{three}" for one in "ab" for two in "ab" for three in _NAMES)]
_DATA = [b"", b"1", b"22", b"x" * 5000]
_LEAVES: list[bytes | Exe | Link | None] = [
    *_DATA, *_DATA, Exe(b"1"), Exe(b"22"), Link("a"), Link("c.py"), None]


def _possible(files: dict[str, Any]) -> dict[str, Any]:
    """Without what would lie below a file or a link."""
    out: dict[str, Any] = {}
    for path in sorted(files):
        parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
        if all(out.get(parent) is None for parent in parents):
            out[path] = files[path]
    return out


def trees(most: int = 12) -> st.SearchStrategy[dict[str, Any]]:
    """Random small trees: few names and contents, so that two of them have much in common."""
    return st.dictionaries(st.sampled_from(_PATHS), st.sampled_from(_LEAVES),
                           max_size=most).map(_possible)
