"""Compiled code by the digest of its source, in place of timestamp ``.pyc`` files.

A ``.pyc`` is judged by its source's size and the whole seconds of its time, so a second edit of the
same size in the same second is never seen, nor is one by an editor that restores the time. Here the
bytes decide: the gate compiles a file once, and what it stored is what the program loads.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType
    from typing import Any

KEPT_SECONDS = 14 * 86_400.0
KEPT_FILES = 8_192
AHEAD_FILES = 2_048
"""Files whose code a child that was forked ahead loads: some 20 MB at most of usual sizes."""
AHEAD_BYTES = 1 << 20
"""A larger source is not loaded ahead: somebody may be about to wait for us."""
_SUFFIX = ".code"
_READ = "read-files"


def compile_source(source: bytes, filename: str) -> CodeType:
    """Compile as an import would: no future flags of ours leak in. Raises as ``compile``."""
    return compile(source, filename, "exec", dont_inherit=True)


_AHEAD: dict[tuple[str, str], CodeType] = {}
"""What was loaded ahead, by its source's digest and its file; each is given out once, for an
import runs a module's code once."""


def forget_ahead() -> None:
    """What nobody has asked for by now, nobody will."""
    _AHEAD.clear()


class CodeStore:
    """A folder of marshalled code objects; one that can't be read or written is as if empty."""

    __slots__ = ("_head", "_later", "_tail", "folder")

    def __init__(self, folder: str) -> None:
        from _frozen_importlib_external import MAGIC_NUMBER

        self.folder = folder
        self._later: list[tuple[bytes, CodeType]] = []
        self._head: bytes = MAGIC_NUMBER
        optimized = f".opt-{sys.flags.optimize}" if sys.flags.optimize else ""
        self._tail = f".{sys.implementation.cache_tag}{optimized}{_SUFFIX}"

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name + self._tail)

    def load(self, source: bytes, filename: str) -> CodeType | None:
        """The code of ``source``, with ``filename`` in its tracebacks, or None."""
        return self._load(digest(source), filename)

    def _load(self, name: str, filename: str) -> CodeType | None:
        import _imp

        known = _AHEAD.pop((name, filename), None) if _AHEAD else None
        if known is not None:
            return known
        try:
            data = _read(self._path(name))
            if not data.startswith(self._head):
                return None
            code: CodeType = marshal.loads(data[len(self._head):])  # noqa: S302 - the folder is ours
        except (OSError, EOFError, ValueError, TypeError):
            return None  # Not there, or cut short by a crash: it is compiled again.
        _imp._fix_co_filename(code, filename)  # type: ignore[attr-defined]
        return code

    def store(self, source: bytes, code: CodeType) -> None:
        """Keep ``code``. Where that fails, the next process compiles it again."""
        path = self._path(digest(source))
        draft = f"{path}.{os.getpid()}"
        try:
            _write(draft, self._head + marshal.dumps(code))
            os.replace(draft, path)
        except (OSError, ValueError, RecursionError, MemoryError):
            return  # What is nested too deep can be compiled and not be written.

    def look_ahead(self, root: str, files: Iterable[str], stop: Callable[[], bool]) -> None:
        """Load the code of ``files``, relative to ``root``, before anybody asks for it.

        Who asks still reads the source, for its bytes decide; but what it says is here already.
        """
        for path in list(files)[:AHEAD_FILES]:
            if stop():
                return
            whole = os.path.join(root, path)
            source = _read_source(whole)
            if source is None:
                continue
            name = digest(source)
            code = self._load(name, whole)
            if code is not None:
                _AHEAD[name, whole] = code

    def put_off(self, source: bytes, code: CodeType) -> None:
        """Keep ``code``, but write it only with ``catch_up``, when nobody waits for us."""
        self._later.append((source, code))

    def catch_up(self) -> None:
        """Write what was put off."""
        later, self._later = self._later, []
        for source, code in later:
            self.store(source, code)

    def compile(self, source: bytes, filename: str) -> CodeType:
        """The stored code of ``source``, else compiled now and stored. Raises as ``compile``."""
        code = self.load(source, filename)
        if code is None:
            code = compile_source(source, filename)
            self.store(source, code)
        return code

    # -- data files: only those that the program reads are worth a gate

    def note_read(self, paths: Iterable[str]) -> None:
        """Remember data files that the program has read, relative to the root."""
        lines = "".join(f"{path}\n" for path in paths if "\n" not in path)
        try:
            _write(os.path.join(self.folder, _READ), lines.encode("utf-8", "surrogateescape"),
                   os.O_APPEND)
        except OSError:
            return  # Such a file is then not checked before the program sees it: no harm done.

    def files_read(self) -> frozenset[str]:
        """What ``note_read`` remembers."""
        try:
            data = _read(os.path.join(self.folder, _READ))
        except OSError:
            return frozenset()
        return frozenset(data.decode("utf-8", "surrogateescape").splitlines())

    def prune(self, now: float | None = None) -> int:
        """Delete what is old, and the oldest above a count; the number of files that went."""
        limit = (time.time() if now is None else now) - KEPT_SECONDS
        try:
            with os.scandir(self.folder) as entries:
                found = sorted((entry.stat().st_mtime, entry.path) for entry in entries
                               if _SUFFIX in entry.name and entry.is_file())
            old = [path for age, path in found[:-KEPT_FILES]]
            old += [path for age, path in found[-KEPT_FILES:] if age < limit]
            for path in old:
                os.unlink(path)
        except OSError:
            return 0  # Another worker prunes too, or the folder went: nothing depends on it.
        return len(old)


def _find_sha256() -> Callable[[bytes], Any]:
    """The small C module: ``hashlib`` costs 3–5 ms to import, and OpenSSL with it."""
    try:
        module = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha256")
    except ImportError:
        module = __import__("hashlib")
    found: Callable[[bytes], Any] = module.sha256
    return found


_SHA256 = _find_sha256()


def digest(source: bytes) -> str:
    """SHA-256 in hex."""
    return str(_SHA256(source).hexdigest())


def _read_source(path: str) -> bytes | None:
    """A source file of usual size; None for anything else, be it a pipe that nobody writes to."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > AHEAD_BYTES:
                return None
            return os.read(fd, found.st_size)
        finally:
            os.close(fd)
    except OSError:
        return None  # It was loaded once and is gone.


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        data = os.read(fd, size)
    finally:
        os.close(fd)
    return data


def _write(path: str, data: bytes, how: int = os.O_TRUNC) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | how | os.O_CLOEXEC, 0o600)
    try:
        with memoryview(data) as left:
            done = 0
            while done < len(data):
                done += os.write(fd, left[done:])
    finally:
        os.close(fd)
