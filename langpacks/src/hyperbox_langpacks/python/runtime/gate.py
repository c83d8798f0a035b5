"""Checks files before the running program can see them; keeps the code that it compiled."""

from __future__ import annotations

import os
import sys
import warnings

from .codes import CodeStore, compile_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Error = Mapping[str, Any]

YAML_LIMIT = 1 << 20
YAML_LIMIT_PURE = 64 << 10
"""Bytes of YAML that are looked at: without its C library the parser takes some 10 µs for each."""
_TEMPLATED = (b"{{", b"{%")


def gate(files: Iterable[Mapping[str, str]], root: str, codes: CodeStore) -> list[Error]:
    """The first error of each file, in the order given.

    ``files`` name a ``path`` below the root, and where its bytes are to be ``read`` from. What was
    compiled is put off: the answer goes first, and the program asks for it a moment later.
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
    if extension in (".yaml", ".yml"):
        return _check_yaml(path, source)
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
    codes.put_off(source, code)
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


def _check_yaml(path: str, source: bytes) -> Error | None:
    """Only as far as the text goes: no tag is looked up, nothing is made of it.

    With the parser that the program has imported; without one, who knows what it reads it as. A
    template is none of our business: it becomes YAML elsewhere.
    """
    parser = _yaml_parser()
    if parser is None or any(mark in source for mark in _TEMPLATED):
        return None
    compose, wrong, limit = parser
    if len(source) > limit:
        return None
    try:
        for _ in compose(source):
            pass
    except RecursionError:
        return None
    except wrong as error:
        return _yaml_error(path, error)
    return None


def _yaml_parser() -> tuple[Callable[[bytes], Iterable[Any]], type[Exception], int] | None:
    """What reads all documents of a text, what it raises, and how much it can be given."""
    yaml: Any = sys.modules.get("yaml")
    if hasattr(yaml, "compose_all"):
        loader = getattr(yaml, "CBaseLoader", None)
        return (lambda source: yaml.compose_all(source, Loader=loader or yaml.BaseLoader),
                yaml.YAMLError, YAML_LIMIT if loader else YAML_LIMIT_PURE)
    ruamel: Any = sys.modules.get("ruamel.yaml")
    if hasattr(getattr(ruamel, "YAML", None), "compose_all"):
        return (lambda source: ruamel.YAML(typ="safe", pure=True).compose_all(_stream(source)),
                ruamel.YAMLError, YAML_LIMIT_PURE)
    return None


def _stream(source: bytes) -> Any:
    import io

    return io.BytesIO(source)


def _yaml_error(path: str, error: Exception) -> Error:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return _error(path, None, None, str(error).partition("\n")[0])
    context = getattr(error, "context", None)
    return _error(path, mark.line + 1, mark.column + 1,
                  f"{context} {problem}" if context else problem)


def _error(path: str, line: int | None, column: int | None, message: str) -> Error:
    return {"path": path, "line": line, "column": column, "message": message}
