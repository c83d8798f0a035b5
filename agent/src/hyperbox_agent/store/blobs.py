"""Content by digest, the owner's alone.

``<folder>/ab/cdef…`` holds the bytes whose SHA-256 is ``abcdef…``. What is put is verified before
it gets its name; what is used is verified again, since the file may have been the program's own
before (apply moves replaced files here by a rename) and an open descriptor may still write into it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Container, Iterable, Iterator

from hyperbox_agent.errors import MissingBlobsError, StoreError
from hyperbox_agent.home import make_private
from hyperbox_agent.store.ops import Ops, write_all
from hyperbox_agent.store.space import typed

CHUNK = 1 << 20
_MANY = 1000
_CLONED = 256 << 10
_FLAGS_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FLAGS_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class BlobStore:
    """A folder of blobs. Not for two writers at once; readers are free."""

    def __init__(self, folder: str, ops: Ops | None = None) -> None:
        """Use ``folder``, made 0700 if it is not there. Raises NoSpaceError, ApplyError."""
        self.folder = folder
        self._ops = ops or Ops()
        self._temporary = os.path.join(folder, "tmp")
        self._count = 0
        self._size: int | None = None
        self._put = 0
        try:
            make_private(self._temporary)
            os.chmod(folder, 0o700)
            forget_unfinished(folder)
        except OSError as error:
            raise typed(error, os.path.dirname(folder) or "/", "making the store") from error

    def path(self, digest: bytes) -> str:
        """Where the blob is or would be."""
        name = digest.hex()
        return f"{self.folder}/{name[:2]}/{name[2:]}"

    def has(self, digest: bytes) -> bool:
        """Whether it is here. Says nothing of its being whole."""
        return os.path.lexists(self.path(digest))

    def which(self, digests: Collection[bytes]) -> set[bytes]:
        """Those of ``digests`` that are here. For very many, the folders are listed once."""
        if len(digests) < _MANY:
            return {digest for digest in digests if self.has(digest)}
        return {digest for digest, _ in self.digests()}.intersection(digests)

    # -- putting --------------------------------------------------------------------------------

    def put(self, digest: bytes, data: bytes | Iterable[bytes]) -> int:
        """Keep ``data``; the number of bytes.

        Raises StoreError when it is not what ``digest`` says (nothing is kept then), NoSpaceError.
        """
        self._put += 1
        temporary = f"{self._temporary}/{os.getpid()}.{self._put}"
        pieces = (data,) if isinstance(data, bytes) else data
        try:
            size = self._write(temporary, digest, pieces)
            self._name(temporary, digest, size)
        except OSError as error:
            self._forget(temporary)
            raise typed(error, self.folder, "keeping a blob") from error
        except BaseException:
            self._forget(temporary)
            raise
        return size

    def adopt(self, digest: bytes, path: str) -> None:
        """Move the file at ``path``, of the same filesystem, in as the blob of ``digest``.

        Not verified: that costs a read, and every use verifies. One that is here already stays.
        Raises OSError.
        """
        if self.has(digest):
            self._ops.unlink(path)
            return
        self._name(path, digest, os.lstat(path).st_size)

    def _write(self, path: str, digest: bytes, pieces: Iterable[bytes]) -> int:
        hasher = hashlib.sha256()
        size = 0
        fd = self._ops.open(path, _FLAGS_NEW, 0o600)
        try:
            for piece in pieces:
                hasher.update(piece)
                write_all(self._ops, fd, piece)
                size += len(piece)
        finally:
            os.close(fd)
        if hasher.digest() != digest:
            raise StoreError(f"a blob of {size} bytes is not what its digest says: "
                             f"{digest.hex()[:16]} was announced, {hasher.hexdigest()[:16]} came")
        return size

    def _name(self, path: str, digest: bytes, size: int) -> None:
        final = self.path(digest)
        fresh = not os.path.lexists(final)
        try:
            self._ops.rename(path, final)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                self._ops.mkdir(os.path.dirname(final), 0o700)
            self._ops.rename(path, final)
        if fresh and self._size is not None:
            self._size += size
            self._count += 1

    def _forget(self, path: str) -> None:
        with contextlib.suppress(OSError):
            self._ops.unlink(path)

    # -- using ----------------------------------------------------------------------------------

    def chunks(self, digest: bytes) -> Iterator[bytes]:
        """The bytes in pieces. The last piece comes only when the whole was found to be right.

        Raises MissingBlobsError when it is not here, or damaged: it is removed then.
        """
        try:
            fd = os.open(self.path(digest), _FLAGS_READ)
        except OSError:
            raise _missing(digest) from None
        try:
            yield from verified_pieces(fd, digest)
        except MissingBlobsError:
            self.remove(digest)
            raise

    def read(self, digest: bytes) -> bytes:
        """All the bytes. Raises MissingBlobsError as ``chunks`` does."""
        return b"".join(self.chunks(digest))

    def copy_to(self, digest: bytes, path: str, mode: int = 0o600) -> None:
        """A new file at ``path`` with this content (blocks shared where the filesystem can).

        Never a hard link: the program may write into its file. Raises MissingBlobsError,
        FileExistsError, other OSErrors; nothing is left at ``path`` then.
        """
        fd = self._ops.open(path, _FLAGS_NEW, mode)
        try:
            if not self._clone(digest, fd):
                for piece in self.chunks(digest):
                    write_all(self._ops, fd, piece)
        except BaseException:
            self._forget(path)
            raise
        finally:
            os.close(fd)

    def _clone(self, digest: bytes, target: int) -> bool:
        """Share a large blob's blocks. (For a small one that costs three copies, on btrfs.)"""
        try:
            source = os.open(self.path(digest), _FLAGS_READ)
        except OSError:
            raise _missing(digest) from None
        try:
            if os.fstat(source).st_size < _CLONED or not self._ops.clone(source, target):
                return False
        finally:
            os.close(source)
        for _ in self.chunks(digest):  # Verified all the same; a damaged blob raises.
            pass
        return True

    # -- size -----------------------------------------------------------------------------------

    def remove(self, digest: bytes) -> None:
        """Forget it; nothing there is no error."""
        path = self.path(digest)
        try:
            size = os.lstat(path).st_size
            self._ops.unlink(path)
        except FileNotFoundError:
            return
        if self._size is not None:
            self._size -= size
            self._count -= 1

    def digests(self) -> Iterator[tuple[bytes, os.DirEntry[str]]]:
        """Every blob that is here."""
        for folder in _folders(self.folder):
            with os.scandir(folder.path) as found:
                for entry in found:
                    yield bytes.fromhex(folder.name + entry.name), entry

    def usage(self) -> tuple[int, int]:
        """How many blobs, how many bytes. Counted once, then kept."""
        if self._size is None:
            sizes = [entry.stat(follow_symlinks=False).st_size for _, entry in self.digests()]
            self._count, self._size = len(sizes), sum(sizes)
        return self._count, self._size

    def prune(self, keep: Container[bytes], max_bytes: int | None = None) -> int:
        """Remove what is not in ``keep``, then the oldest until ``max_bytes`` hold; bytes freed."""
        kept: list[tuple[float, int, bytes]] = []
        freed = 0
        for digest, entry in list(self.digests()):
            facts = entry.stat(follow_symlinks=False)
            if digest in keep:
                kept.append((facts.st_ctime, facts.st_size, digest))
            else:
                self.remove(digest)
                freed += facts.st_size
        over = sum(size for _, size, _ in kept) - max_bytes if max_bytes is not None else 0
        for _, size, digest in sorted(kept):
            if over <= 0:
                break
            self.remove(digest)
            over -= size
            freed += size
        return freed


def forget_unfinished(folder: str) -> None:
    """Remove what processes that are gone were putting into the store in ``folder``.

    Raises OSError.
    """
    temporary = os.path.join(folder, "tmp")
    for name in os.listdir(temporary):
        pid = name.partition(".")[0]
        if pid.isdigit() and _is_gone(pid):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(temporary, name))


def _is_gone(pid: str) -> bool:
    """Whether there is no such process; one that only waits to be reaped has no program either."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False  # another user's
    return False


def verified_pieces(fd: int, digest: bytes) -> Iterator[bytes]:
    """What ``fd`` holds, in pieces; the last only when all of it was found to be ``digest``'s.

    Raises MissingBlobsError instead of that last piece. Closes ``fd``.
    """
    hasher = hashlib.sha256()
    last = b""
    try:
        while piece := os.read(fd, CHUNK):
            hasher.update(piece)
            if last:
                yield last
            last = piece
    finally:
        os.close(fd)
    if hasher.digest() != digest:
        raise _missing(digest)
    yield last


def _missing(digest: bytes) -> MissingBlobsError:
    return MissingBlobsError(f"the content {digest.hex()[:16]} is not here, or was damaged",
                             digests=(digest,))


def _folders(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return [entry for entry in found if len(entry.name) == 2]


