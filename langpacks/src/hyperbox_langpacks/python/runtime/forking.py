"""Forks an instance: a child that waits for its go and then becomes the program."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import struct
import sys

from . import dummy, program, shim
from .argv import Invocation, looks_like_python, read_arguments, shebang_interpreter
from .codes import CodeStore
from .wire import Wire, read_framed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAY_DIFFER = frozenset(("PWD", "OLDPWD", "SHLVL", "_", "PORT", "LINES", "COLUMNS"))
"""Variables that no library takes in at import; ``HYPERBOX_…`` are ours and always may differ."""


class RefusedError(ValueError):
    """This command can't be run in a fork of this process; the text says why."""


class Child:
    """A forked process that is to become an instance."""

    __slots__ = ("ahead", "go", "options", "request")

    def __init__(self, go: int, request: Mapping[str, Any], options: tuple[str, ...]) -> None:
        self.go = go
        self.request = request
        self.options = options
        self.ahead: Invocation | None = None
        """What the request's command runs, found out while there was time."""

    def become(self) -> tuple[Invocation, CodeStore | None]:
        """Wait for the go, then take on the program's environment. Never returns without a go."""
        self._work_ahead()
        order = read_framed(self.go)
        if order is None:
            os._exit(0)
        os.close(self.go)
        wanted = {**self.request, **order}
        argv, environ = list(wanted["argv"]), dict(wanted.get("env") or os.environ)
        os.chdir(wanted.get("cwd") or ".")
        try:
            if changed := changed_variables(environ):
                raise RefusedError(f"the environment differs: {', '.join(changed)}")
            invocation = self._invocation(argv, environ)
            _check_shadows(invocation)
        except RefusedError:
            # Still the right program, only slower: a new interpreter with the same descriptors.
            os.execvpe(argv[0], argv, environ)  # noqa: S606 - the argv list is the user's command
        _apply(environ)
        program.set_arguments(invocation, argv[0])
        shim.configure(os.environ)
        codes = environ.get("HYPERBOX_CODE")
        return invocation, CodeStore(codes) if codes else None

    def _work_ahead(self) -> None:
        """Do before the go what doesn't depend on it.

        Memory that is shared with the parent is copied at the first write, page by page (2,000
        faults, 2 to 5 ms of a start): a dummy request of our own has them behind us.
        """
        argv, environ = self.request.get("argv"), self.request.get("env") or os.environ
        if argv:
            cwd = self.request.get("cwd") or "."
            self.ahead = resolve(list(argv), environ, self.options, cwd)
            dummy.serve(self.ahead)

    def _invocation(self, argv: list[str], environ: Mapping[str, str]) -> Invocation:
        if self.ahead is not None and argv == self.request.get("argv"):
            return self.ahead
        return resolve(argv, environ, self.options)


def fork(wire: Wire, spec: Mapping[str, Any], request: Mapping[str, Any],
         fds: list[int]) -> tuple[dict[str, Any], Child | None]:
    """Fork a child with these descriptors; in the parent an answer, in the child what it is."""
    options = tuple(spec.get("options", ()))
    try:
        _check_request(request, fds, options)
    except RefusedError as error:
        return {"ok": False, "error": str(error)}, None
    readable, writable = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(readable)
        return {}, _in_child(wire, request, fds, options, writable)
    os.close(writable)
    told = os.read(readable, 4)
    os.close(readable)
    os.waitpid(middle, 0)
    if len(told) < 4:
        return {"ok": False, "error": "the forked child ended at once"}, None
    return {"ok": True, "pid": struct.unpack("!I", told)[0]}, None


def _check_request(request: Mapping[str, Any], fds: list[int], options: tuple[str, ...]) -> None:
    if len(fds) != 4:
        raise RefusedError(f"fork takes 4 descriptors, got {len(fds)}")
    environ = request.get("env")
    if environ is not None and (changed := changed_variables(environ)):
        raise RefusedError(f"the environment differs from the prepared one: {', '.join(changed)}")
    if request.get("argv"):
        cwd = request.get("cwd") or "."
        resolve(list(request["argv"]), environ or os.environ, options, cwd)


def _in_child(wire: Wire, request: Mapping[str, Any], fds: list[int], options: tuple[str, ...],
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
    return Child(fds[3], request, options)


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


def changed_variables(environ: Mapping[str, str]) -> list[str]:
    """Names of variables that a library may have read at import and that are not the same now."""
    environ = as_coerced(environ)
    names = {*environ, *os.environ} - MAY_DIFFER
    return sorted(name for name in names if not name.startswith("HYPERBOX_")
                  and environ.get(name) != os.environ.get(name))


def as_coerced(environ: Mapping[str, str]) -> Mapping[str, str]:
    """As a new interpreter has it: in the C locale Python sets ``LC_CTYPE`` itself (PEP 538)."""
    coerced = os.environ.get("LC_CTYPE")
    if coerced not in ("C.UTF-8", "C.utf8", "UTF-8") or "LC_CTYPE" in environ:
        return environ
    return {**environ, "LC_CTYPE": coerced}


def _apply(environ: Mapping[str, str]) -> None:
    environ = as_coerced(environ)
    for name in set(os.environ) - set(environ):
        del os.environ[name]
    for name, value in environ.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    _forget_listings(environ.get("HYPERBOX_ROOT", ""))
    _seed_anew()


def _forget_listings(root: str) -> None:
    """The import system keeps each folder's listing; the tree's have changed since."""
    for path in [path for path in sys.path_importer_cache if not path or path.startswith(root)]:
        del sys.path_importer_cache[path]


def _seed_anew() -> None:
    """``random`` reseeds itself at a fork, and OpenSSL too; numpy's global generator does not."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


# ------------------------------------------------------------------------- what is to be run


def resolve(argv: list[str], environ: Mapping[str, str], options: tuple[str, ...],
            cwd: str = ".") -> Invocation:
    """What this command line has our interpreter run. Raises RefusedError."""
    path = _which(argv[0], environ, cwd)
    if path is None:
        raise RefusedError(f"{argv[0]} is not found")
    if looks_like_python(argv[0]):
        invocation = read_arguments(argv[1:])
        if not _is_our_interpreter(path):
            raise RefusedError(f"{path} is another interpreter than {sys.executable}")
        if invocation.options != options:
            raise RefusedError("the interpreter's options differ from the prepared ones")
        if invocation.kind == "none":
            raise RefusedError("the interpreter reads its program from standard input")
        return invocation
    return _console_script(path, argv[1:], environ, options)


def _console_script(path: str, arguments: list[str], environ: Mapping[str, str],
                    options: tuple[str, ...]) -> Invocation:
    """A script of the environment's ``bin``: its first line names our interpreter."""
    with open(path, "rb") as file:
        interpreter = shebang_interpreter(file.read(1024))
    if interpreter is not None and os.path.basename(interpreter) == "env":
        interpreter = _which("python3", environ, ".")
    if interpreter is None or not _is_our_interpreter(interpreter):
        raise RefusedError(f"{path} is no script of this interpreter")
    if options:
        raise RefusedError("the interpreter's options differ from the prepared ones")
    return Invocation((), "script", path, tuple(arguments))


def _which(name: str, environ: Mapping[str, str], cwd: str) -> str | None:
    if "/" in name:
        path = os.path.join(cwd, name)
        return path if os.access(path, os.X_OK) else None
    return shutil.which(name, path=environ.get("PATH"))


def _is_our_interpreter(path: str) -> bool:
    """The same binary in the same folder: an environment is known by where its link stands."""
    return (os.path.realpath(path) == os.path.realpath(sys.executable)
            and _folder(path) == _folder(sys.executable))


def _folder(path: str) -> str:
    return os.path.realpath(os.path.dirname(path))


def _check_shadows(invocation: Invocation) -> None:
    """Refuse where the project now has a module by the name of one that is already imported."""
    from .prepare import shadowed

    name = shadowed([program.first_path(invocation)])
    if name is not None:
        raise RefusedError(f"{name} would come from the project, not from the library")
