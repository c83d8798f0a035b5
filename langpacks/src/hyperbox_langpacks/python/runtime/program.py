"""Runs a program in this process as if a new interpreter had been started for it."""

from __future__ import annotations

import os
import sys

from .argv import Invocation
from .codes import CodeStore, compile_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType, TracebackType
    from typing import Any


def run(invocation: Invocation, codes: CodeStore | None) -> None:
    """Run it as ``__main__``. What it raises leaves here as it would leave an interpreter."""
    module = _new_main()
    try:
        if invocation.kind == "script" and not _is_importable(invocation.target):
            _run_script(module, invocation.target, codes)
        elif invocation.kind in ("script", "module"):
            import runpy

            is_module = invocation.kind == "module"
            runpy._run_module_as_main(  # type: ignore[attr-defined]
                invocation.target if is_module else "__main__", is_module)
        else:
            exec(compile_source(invocation.target.encode(), "<string>"), vars(module))  # noqa: S102 - that is what -c is
    except SystemExit:
        raise
    except BaseException as error:
        _hide_ourselves(error)
        raise


def rehearse(invocation: Invocation, codes: CodeStore) -> None:
    """Go through what ``run`` does first, without running anything: it is quicker then."""
    if invocation.kind != "script" or _is_importable(invocation.target):
        return
    try:
        with open(invocation.target, "rb") as file:
            codes.load(file.read(), invocation.target)
    except OSError:
        return  # The script is not there yet, or is just being replaced.


def set_arguments(invocation: Invocation, interpreter: str) -> None:
    """``sys.argv``, ``sys.orig_argv`` and ``sys.path[0]``."""
    first = {"script": invocation.target, "module": "-m", "command": "-c"}[invocation.kind]
    sys.argv[:] = [first, *invocation.arguments]
    if hasattr(sys, "orig_argv"):
        how = {"script": [], "module": ["-m"], "command": ["-c"]}[invocation.kind]
        sys.orig_argv[:] = [interpreter, *invocation.options, *how, invocation.target,
                            *invocation.arguments]
    if not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
        sys.path.insert(0, first_path(invocation))


def first_path(invocation: Invocation) -> str:
    """What Python puts first on ``sys.path`` for this invocation."""
    if invocation.kind == "module":
        return os.getcwd()
    if invocation.kind == "command":
        return ""
    if _is_importable(invocation.target):
        # Since 3.9 Python makes the script's path absolute.
        target = invocation.target
        return os.path.abspath(target) if sys.version_info >= (3, 9) else target
    return os.path.dirname(os.path.realpath(invocation.target))


def _new_main() -> ModuleType:
    main = type(sys)("__main__")
    main.__dict__.update(__builtins__=sys.modules["builtins"], __annotations__={})
    sys.modules["__main__"] = main
    return main


def _is_importable(target: str) -> bool:
    """Whether the script is a folder or an archive: the import system finds its main module."""
    if os.path.isdir(target):
        return True
    if not target.endswith((".zip", ".pyz")):
        return False
    import zipimport

    try:
        zipimport.zipimporter(target)
    except zipimport.ZipImportError:
        return False
    return True


def _run_script(main: ModuleType, target: str, codes: CodeStore | None) -> None:
    filename = os.path.abspath(target) if sys.version_info >= (3, 9) else target
    code = _script_code(filename, target, codes)
    from _frozen_importlib_external import SourceFileLoader

    main.__dict__.update(__file__=filename, __cached__=None,
                         __loader__=SourceFileLoader("__main__", filename))
    exec(code, vars(main))  # noqa: S102 - that is what running a script is


def _script_code(filename: str, target: str, codes: CodeStore | None) -> CodeType:
    try:
        with open(filename, "rb") as file:
            source = file.read()
    except OSError as error:
        sys.stderr.write(f"{sys.executable}: can't open file {filename!r}: "
                         f"[Errno {error.errno}] {error.strerror}\n")
        raise SystemExit(2) from None
    if codes is None:
        return compile_source(source, filename)
    return codes.compile(source, filename)


_KEPT: list[object] = []


def _hide_ourselves(error: BaseException) -> None:
    """Have the traceback begin in the program.

    The interpreter prints an exception that leaves the main module through ``sys.excepthook``; it
    is called by the interpreter itself, so threads and ``atexit`` still end in the usual order.
    """
    shown = _without_ours(error.__traceback__)
    users = sys.excepthook
    # Python 3.8 crashes at its end if the traceback that it gave to the hook is gone by then.
    _KEPT.append(error.__traceback__)

    def excepthook(kind: type[BaseException], value: BaseException, trace: Any) -> None:
        sys.excepthook = users
        sys.last_traceback = shown
        try:
            users(kind, value.with_traceback(shown), shown)
        except SystemExit:
            raise
        except BaseException as fault:  # noqa: BLE001 - told in the interpreter's own words
            _tell_broken_hook(fault, value)

    sys.excepthook = excepthook


def _tell_broken_hook(fault: BaseException, value: BaseException) -> None:
    sys.stderr.write("Error in sys.excepthook:\n")
    sys.__excepthook__(type(fault), fault.with_traceback(_without_ours(fault.__traceback__)), None)
    sys.stderr.write("\nOriginal exception was:\n")
    sys.__excepthook__(type(value), value, value.__traceback__)


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    ours = os.path.dirname(__file__)
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == ours:
        trace = trace.tb_next
    return trace
