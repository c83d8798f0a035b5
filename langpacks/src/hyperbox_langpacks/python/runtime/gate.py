"""Checks files before the running program can see them; keeps the code that it compiled."""

from __future__ import annotations

import os
import warnings

from .codes import CodeStore, compile_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Error = Mapping[str, Any]


def gate(files: Iterable[Mapping[str, str]], root: str, codes: CodeStore) -> list[Error]:
    """The first error of each file, in the order given.

    ``files`` name a ``path`` below the root, and where its bytes are to be ``read`` from.
    """
    checked = (_check(one["path"], one.get("read") or os.path.join(root, one["path"]), root, codes)
               for one in files if _is_wanted(one["path"], codes))
    return [error for error in checked if error is not None]


def _is_wanted(path: str, codes: CodeStore) -> bool:
    """Source always; data only where the program reads it: a broken test file stops nobody."""
    return (path.endswith((".py", ".pyw")) or path == "pyproject.toml"
            or path in codes.files_read())


def _check(path: str, read: str, root: str, codes: CodeStore) -> Error | None:
    try:
        with open(read, "rb") as file:
            source = file.read()
    except OSError as error:
        return _error(path, None, None, f"can't be read: {error.strerror}")
    extension = os.path.splitext(path)[1]
    if extension in (".py", ".pyw"):
        return _check_python(path, source, os.path.join(root, path), codes)
    if extension == ".json":
        return _check_json(path, source)
    if extension == ".toml":
        return _check_toml(path, source)
    return None


def _check_python(path: str, source: bytes, filename: str, codes: CodeStore) -> Error | None:
    if codes.load(source, filename) is not None:
        return None
    try:
        with warnings.catch_warnings():
            # A doubtful escape is no reason to stop a save, whatever -W the project runs with.
            warnings.simplefilter("ignore")
            code = compile_source(source, filename)
    except SyntaxError as error:
        line = error.lineno or _line_of_null(source)
        return _error(path, line, error.offset, _syntax_message(error))
    except (ValueError, UnicodeError, RecursionError, MemoryError, OverflowError) as error:
        # Null bytes (before 3.11.4), an unknown encoding, or an expression nested too deep.
        return _error(path, _line_of_null(source), None, str(error) or type(error).__name__)
    codes.store(source, code)
    return None


def _syntax_message(error: SyntaxError) -> str:
    kind = type(error).__name__
    text = error.msg or "invalid syntax"
    return text if kind == "SyntaxError" else f"{kind}: {text}"


def _line_of_null(source: bytes) -> int | None:
    place = source.find(b"\0")
    return None if place < 0 else source.count(b"\n", 0, place) + 1


def _check_json(path: str, source: bytes) -> Error | None:
    import json

    try:
        json.loads(source.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        return _error(path, error.lineno, error.colno, error.msg)
    except UnicodeDecodeError as error:
        return _error(path, source.count(b"\n", 0, error.start) + 1, None, f"not UTF-8: {error}")
    return None


def _check_toml(path: str, source: bytes) -> Error | None:
    try:
        import tomllib
    except ImportError:
        return None  # Before 3.11 there is nothing in the library to check it with.
    try:
        tomllib.loads(source.decode())
    except tomllib.TOMLDecodeError as error:
        return _toml_error(path, error)
    except UnicodeDecodeError as error:
        return _error(path, source.count(b"\n", 0, error.start) + 1, None, f"not UTF-8: {error}")
    return None


def _toml_error(path: str, error: ValueError) -> Error:
    """Its place stands in the text: "… (at line 3, column 7)"."""
    import re

    text = str(error)
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", text)
    if found is None or found.group(1) is None:
        return _error(path, None, None, text)
    return _error(path, int(found.group(1)), int(found.group(2)), text[:found.start()])


def _error(path: str, line: int | None, column: int | None, message: str) -> Error:
    return {"path": path, "line": line, "column": column, "message": message}
