"""The few fields of ``pyproject.toml`` and its like that a pack needs, on any Python.

``tomllib`` reads them where there is one (3.11). On 3.10 a small reader takes tables, arrays of
tables, strings, numbers, booleans, arrays and inline tables, and skips a line that it can't read:
detection must not fail on what it doesn't need.
"""

from __future__ import annotations

import re
from typing import Any

Table = dict[str, Any]

# Patterns as text, compiled when the fallback first reads: for Python 3.10 and for what is broken.
_KEY = r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)\s*(\.?)"""
_HEADER = r"^\s*(\[\[?)(.+?)\]\]?\s*(?:#.*)?$"
_NUMBER = r"[+-]?(?:0x[0-9a-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)$"
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "r": "\r", "b": "\b", "f": "\f"}


def read_toml(text: str) -> Table:
    """The document as a table; what can't be read is left out."""
    if not text.strip():
        return {}
    try:
        import tomllib
    except ImportError:
        return read_tolerantly(text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return read_tolerantly(text)


def get(table: object, *keys: str) -> Any:
    """The value below nested tables, or None."""
    for key in keys:
        if not isinstance(table, dict):
            return None
        table = table.get(key)
    return table


def read_tolerantly(text: str) -> Table:
    """The fallback: see the module's docstring."""
    root: Table = {}
    here = root
    lines = iter(text.splitlines())
    for line in lines:
        header = re.match(_HEADER, line)
        if header is not None:
            here = _open_table(root, _split_key(header[2]), in_array=header[1] == "[[")
            continue
        key, equals, value = line.partition("=")
        if not equals or line.lstrip().startswith("#"):
            continue
        for more in lines if _is_open(value) else ():
            value += "\n" + more
            if not _is_open(value):
                break
        names = _split_key(key)
        if names:
            _open_table(here, names[:-1], in_array=False)[names[-1]] = _Values(value).one()
    return root


def _split_key(text: str) -> list[str]:
    names, place = [], 0
    while found := re.compile(_KEY).match(text, place):
        names.append(found[1].strip("\"'"))
        place = found.end()
        if not found[2]:
            break
    return names


def _open_table(root: Table, names: list[str], *, in_array: bool) -> Table:
    here: Any = root
    for place, name in enumerate(names):
        last = place == len(names) - 1
        if in_array and last:
            rows = here.setdefault(name, [])
            here = {}
            if isinstance(rows, list):
                rows.append(here)
            break
        inner = here.setdefault(name, {})
        here = inner[-1] if isinstance(inner, list) and inner else inner
        if not isinstance(here, dict):
            return {}
    return here if isinstance(here, dict) else {}


def _is_open(value: str) -> bool:
    """Whether a value goes on in the next line: an open bracket or a long string."""
    rest = re.sub(r'""".*?"""|\'\'\'.*?\'\'\'', "", value, flags=re.DOTALL)
    if re.search(r'^[^"\'#\n]*(?:"""|\'\'\')', rest):
        return True
    bare = re.sub(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', "", rest)
    bare = re.sub(r"#.*", "", bare)
    return bare.count("[") + bare.count("{") > bare.count("]") + bare.count("}")



class _Values:
    """Reads values from the text right of an equals sign."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0

    def _skip(self) -> None:
        found = re.compile(r"(?:\s|#[^\n]*)*").match(self.text, self.place)
        self.place = found.end() if found else self.place

    def _take(self, pattern: str) -> str | None:
        found = re.compile(pattern, re.DOTALL).match(self.text, self.place)
        if found is None:
            return None
        self.place = found.end()
        return found[0]

    def one(self) -> Any:
        """The value at this place; None where it is of no kind that is known here."""
        self._skip()
        if (long := self._take(r'""".*?"""|\'\'\'.*?\'\'\'')) is not None:
            return long[3:-3].removeprefix("\n")
        if (quoted := self._take(r'"(?:[^"\\]|\\.)*"')) is not None:
            return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), quoted[1:-1])
        if (literal := self._take(r"'[^']*'")) is not None:
            return literal[1:-1]
        if self._take(r"\["):
            return self._array()
        if self._take(r"\{"):
            return self._inline_table()
        return _scalar((self._take(r"[^,\]\}\n#]+") or "").strip())

    def _array(self) -> list[Any]:
        items = []
        while self._more(r"\]"):
            items.append(self.one())
        return items

    def _inline_table(self) -> Table:
        table: Table = {}
        while self._more(r"\}"):
            key = self._take(r"[^=,\}\n]+=")
            if key is None:
                self.place += 1
                continue
            names = _split_key(key[:-1])
            if names:
                _open_table(table, names[:-1], in_array=False)[names[-1]] = self.one()
        return table

    def _more(self, end: str) -> bool:
        self._skip()
        self._take(",")
        self._skip()
        return self.place < len(self.text) and self._take(end) is None


def _scalar(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    if not re.match(_NUMBER, text):
        return text or None
    digits = text.replace("_", "")
    if "x" in digits:
        return int(digits, 16)
    return float(digits) if set(digits) & set(".eE") else int(digits)
