"""Loads the project's own modules by what their source says now, never by a ``.pyc``."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FunctionType
    from typing import Any

    from .codes import CodeStore
    from .tree import Tree

IMPORT_SYSTEM = "<frozen importlib._bootstrap_external>"


def hide(function: Callable[..., Any]) -> None:
    """Make ``function`` a frame of the import system, which tracebacks leave out.

    Python drops frames by their code's file name; ours would otherwise stand between ``import x``
    and the line of ``x`` that raised.
    """
    target: FunctionType = function  # type: ignore[assignment]
    target.__code__ = target.__code__.replace(co_filename=IMPORT_SYSTEM)


def install(find_tree: Callable[[], Tree | None], find_codes: Callable[[], CodeStore | None],
            loaded: Callable[[str], None]) -> None:
    """Take over ``get_code`` for the project's own files.

    The tree and the store are asked for at each load: a prepared parent learns them after this.
    ``loaded`` is told each such file, relative to the root, before its code runs.
    """
    import _frozen_importlib_external as external

    plain = external.SourceFileLoader
    original = external.SourceLoader.get_code
    plain_compile = external.SourceLoader.source_to_code

    def get_code(self: Any, fullname: str) -> CodeType | None:
        tree, codes = find_tree(), find_codes()
        path = self.get_filename(fullname)
        own = tree.relative(path) if tree is not None else None
        if own is None or codes is None:
            result: CodeType | None = original(self, fullname)
            return result
        loaded(own)
        source = self.get_data(path)
        if type(self).source_to_code is not plain_compile:
            # A library's loader that rewrites what it compiles (type checkers do): never shared.
            rewritten: CodeType = self.source_to_code(source, path)
            return rewritten
        code = codes.load(source, path)
        if code is None:
            code = self.source_to_code(source, path)
            codes.store(source, code)
        return code

    hide(get_code)
    plain.get_code = get_code  # type: ignore[method-assign]


def is_installed() -> bool:
    """Whether ``install`` was called in this process."""
    external: Any = sys.modules["_frozen_importlib_external"]
    return "get_code" in vars(external.SourceFileLoader)
