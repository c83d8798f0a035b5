"""Forks an instance: a child that waits for its go and then becomes the program."""

from __future__ import annotations

import gc
import os
import signal
import struct
import sys

from . import dummy, program, shim
from .codes import CodeStore
from .resolve import RefusedError, check_shadows, resolve
from .wire import Wire, read_framed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .argv import Invocation

MAY_DIFFER = frozenset(("PWD", "OLDPWD", "SHLVL", "_", "PORT", "LINES", "COLUMNS"))
"""Variables that no library takes in at import; ``HYPERBOX_…`` are ours and always may differ."""

_COERCED = frozenset(("C.UTF-8", "C.utf8", "UTF-8"))


class Child:
    """A forked process that is to become an instance."""

    __slots__ = ("_ahead", "_environ", "go", "options", "request", "spec")

    def __init__(self, go: int, spec: Mapping[str, Any], request: Mapping[str, Any]) -> None:
        self.go = go
        self.spec = spec
        self.request = request
        self.options = _options(spec)
        self._ahead: Invocation | None = None
        """What the request's command runs, found out while there was time."""
        self._environ = dict(os.environ)

    def become(self) -> tuple[Invocation, CodeStore | None]:
        """Wait for the go, then take on the program's environment. Never returns without a go."""
        self._work_ahead()
        order = read_framed(self.go)
        if order is None:
            os._exit(0)
        os.close(self.go)
        wanted = {**self.request, **order}
        argv = list(wanted["argv"])
        environ = dict(as_started(wanted.get("env") or self._environ, self._environ))
        os.chdir(wanted.get("cwd") or ".")
        try:
            invocation = self._invocation(argv, environ)
        except RefusedError:
            # Still the right program, only slower: a new interpreter with the same descriptors.
            os.execvpe(argv[0], argv, environ)  # noqa: S606 - the argv list is the user's command
        _apply(environ, self._environ)
        _forget_listings(environ.get("HYPERBOX_ROOT", ""))
        program.set_arguments(invocation, argv[0])
        shim.configure(environ)
        codes = environ.get("HYPERBOX_CODE")
        return invocation, CodeStore(codes) if codes else None

    def _work_ahead(self) -> None:
        """Do before the go what doesn't depend on it, and rehearse the rest.

        Memory that is shared with the parent is copied at the first write, page by page (2,000
        faults, 2 to 5 ms of a start): a dummy request of our own has them behind us.
        """
        import mmap  # noqa: F401 - for peers.py, which needs it with the first connection

        shim.install()
        argv, environ = self.request.get("argv"), self.request.get("env")
        if not argv or not environ:
            return
        environ = as_started(environ, self._environ)
        os.chdir(self.request.get("cwd") or ".")
        self._ahead = resolve(list(argv), environ, self.options)
        _apply(environ, self._environ)
        self._environ = dict(environ)
        _seed_anew()
        dummy.serve(self._ahead)
        shim.configure({**environ, "HYPERBOX_CONTROL": ""})
        codes = CodeStore(str(self.spec["code"]))
        program.rehearse(self._ahead, codes)
        codes.look_ahead(str(self.spec["root"]), self.request.get("files", ()), self._has_go)

    def _has_go(self) -> bool:
        """Whether somebody waits for us already."""
        import select

        return bool(select.select((self.go,), (), (), 0)[0])

    def _invocation(self, argv: list[str], environ: Mapping[str, str]) -> Invocation:
        """What this go runs. Raises RefusedError where a new interpreter must."""
        if changed := changed_variables(environ, self._environ):
            raise RefusedError(f"the environment differs: {', '.join(changed)}")
        if self._ahead is not None and argv == self.request.get("argv"):
            invocation = self._ahead
        else:
            invocation = resolve(argv, environ, self.options)
        check_shadows(invocation)
        return invocation


def fork(wire: Wire, spec: Mapping[str, Any], request: Mapping[str, Any],
         fds: list[int]) -> tuple[dict[str, Any], Child | None]:
    """Fork a child with these descriptors; in the parent an answer, in the child what it is."""
    try:
        _check_request(request, fds, _options(spec))
    except RefusedError as error:
        return {"ok": False, "error": str(error)}, None
    readable, writable = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(readable)
        return {}, _in_child(wire, spec, request, fds, writable)
    os.close(writable)
    told = os.read(readable, 4)
    os.close(readable)
    os.waitpid(middle, 0)
    if len(told) < 4:
        return {"ok": False, "error": "the forked child ended at once"}, None
    return {"ok": True, "pid": struct.unpack("!I", told)[0]}, None


def _options(spec: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(spec.get("options", ()))


def _check_request(request: Mapping[str, Any], fds: list[int], options: tuple[str, ...]) -> None:
    if len(fds) != 4:
        raise RefusedError(f"fork takes 4 descriptors, got {len(fds)}")
    environ = request.get("env")
    if environ is not None and (
            changed := changed_variables(as_started(environ, os.environ), os.environ)):
        raise RefusedError(f"the environment differs from the prepared one: {', '.join(changed)}")
    if request.get("argv"):
        cwd = request.get("cwd") or "."
        resolve(list(request["argv"]), environ or os.environ, options, cwd)


def _in_child(wire: Wire, spec: Mapping[str, Any], request: Mapping[str, Any], fds: list[int],
              writable: int) -> Child:
    """The rest of the double fork; the middle process ends here."""
    if os.fork() != 0:
        os._exit(0)
    try:
        os.setsid()
        for source, target in zip(fds[:3], range(3)):  # noqa: B905 - strict= is 3.10
            os.dup2(source, target)
            os.close(source)
        wire.close()
        _take_terminal()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _fit_output_to_descriptors()
        gc.enable()
        os.write(writable, struct.pack("!I", os.getpid()))
        os.close(writable)
    except OSError:
        os._exit(1)  # The parent sees the closed pipe and says so.
    return Child(fds[3], spec, request)


def _take_terminal() -> None:
    """A session leader takes the terminal it was given for its own."""
    if not os.isatty(0):
        return
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _fit_output_to_descriptors() -> None:
    """Standard output is line-buffered on a terminal only, as a new interpreter has it."""
    out = sys.stdout
    if out is not None and not getattr(out, "write_through", True):
        out.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]


def as_started(environ: Mapping[str, str], before: Mapping[str, str]) -> Mapping[str, str]:
    """``environ`` as an interpreter that is started with it has it.

    In the C locale Python sets ``LC_CTYPE`` itself (PEP 538): the prepared parent has it then, and
    so would a new interpreter.
    """
    own = before.get("LC_CTYPE")
    if (own not in _COERCED or "LC_CTYPE" in environ or environ.get("LC_ALL")
            or environ.get("LANG", "C") not in ("", "C", "POSIX")):
        return environ
    return {**environ, "LC_CTYPE": str(own)}


def changed_variables(environ: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """Names of variables that a library may have read at import and that are not the same now."""
    if environ == before:
        return []
    names = {*environ, *before} - MAY_DIFFER
    return sorted(name for name in names if not name.startswith("HYPERBOX_")
                  and environ.get(name) != before.get(name))


def _apply(environ: Mapping[str, str], before: Mapping[str, str]) -> None:
    for name in set(before) - set(environ):
        os.environ.pop(name, None)
    for name, value in environ.items():
        if before.get(name) != value:
            os.environ[name] = value


def _forget_listings(root: str) -> None:
    """The import system keeps each folder's listing; the tree's have changed since."""
    for path in [path for path in sys.path_importer_cache if not path or path.startswith(root)]:
        del sys.path_importer_cache[path]


def _seed_anew() -> None:
    """``random`` reseeds itself at a fork, and OpenSSL too; numpy's global generator does not."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
