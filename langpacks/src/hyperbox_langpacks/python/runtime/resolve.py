"""Finds out what a command line has our interpreter run, or why that can't be forked."""

from __future__ import annotations

import os
import shutil
import sys

from . import program
from .argv import Invocation, looks_like_python, read_arguments, shebang_interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class RefusedError(ValueError):
    """This command can't be run in a fork of this process; the text says why."""


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


def check_shadows(invocation: Invocation) -> None:
    """Refuse where the project now has a module by the name of one that is already imported."""
    from .prepare import shadowed

    name = shadowed([program.first_path(invocation)])
    if name is not None:
        raise RefusedError(f"{name} would come from the project, not from the library")
