"""Where each key of a TOML text stands. tomllib reads the values but keeps no places.

The text has been read by tomllib before, so it is valid TOML: this scanner only has to follow it,
never to judge it.
"""

from __future__ import annotations

from typing import NamedTuple

Path = tuple[str | int, ...]
_BARE_END = frozenset(" \t\r\n.=]#,}")
_SCALAR_END = frozenset("\n,]}#")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\",
            "e": "\x1b"}
_CODE_LENGTH = {"x": 2, "u": 4, "U": 8}


class Place(NamedTuple):
    """A place in a text, both from 1."""

    line: int
    column: int


def locate(text: str) -> dict[Path, Place]:
    """The place of every key, table header and list item, by path; an item's path has its index."""
    return _Scanner(text.replace("\r\n", "\n")).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._places: dict[Path, Place] = {}
        self._lines = [0]
        self._items: dict[Path, int] = {}
        """By path of an array of tables: the index of its last table."""
        for at, char in enumerate(text):
            if char == "\n":
                self._lines.append(at + 1)

    def run(self) -> dict[Path, Place]:
        table: Path = ()
        while self._skip_blank(newlines=True):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._places

    def _place(self, at: int) -> Place:
        low, high = 0, len(self._lines)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._lines[middle] <= at else (low, middle)
        return Place(low + 1, at - self._lines[low] + 1)

    def _note(self, path: Path, at: int) -> None:
        self._places.setdefault(path, self._place(at))

    def _skip_blank(self, *, newlines: bool) -> bool:
        """Go to the next thing that counts; False at the end of the text."""
        blank = " \t\r\n" if newlines else " \t"
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "#" and newlines:
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif char in blank:
                self._at += 1
            else:
                return True
        return False

    def _header(self) -> Path:
        start = self._at
        array = self._text.startswith("[[", start)
        self._at += 2 if array else 1
        path: Path = ()
        for key, at in self._keys("]"):
            path = (*self._last(path), key)
            self._note(path, at)
        self._at += 2 if array else 1
        if array:
            self._items[path] = self._items.get(path, -1) + 1
            path = self._last(path)
        self._note(path, start)
        return path

    def _last(self, path: Path) -> Path:
        """The table that a header's further parts belong to: an array means its last table."""
        return (*path, self._items[path]) if path in self._items else path

    def _pair(self, table: Path) -> None:
        path = table
        for key, at in self._keys("="):
            path = (*path, key)
            self._note(path, at)
        self._at += 1
        self._value(path)

    def _keys(self, end: str) -> list[tuple[str, int]]:
        """The parts of a dotted key with their places; stops at ``end``."""
        keys: list[tuple[str, int]] = []
        while True:
            self._skip_blank(newlines=False)
            char = self._text[self._at]
            if char == end:
                return keys
            if char == ".":
                self._at += 1
                continue
            at = self._at
            keys.append((self._string() if char in "\"'" else self._bare(), at))

    def _bare(self) -> str:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in _BARE_END:
            self._at += 1
        return self._text[start:self._at]

    def _value(self, path: Path) -> None:
        self._skip_blank(newlines=False)
        char = self._text[self._at]
        if char in "\"'":
            self._string()
        elif char == "[":
            self._array(path)
        elif char == "{":
            self._inline(path)
        else:
            while self._at < len(self._text) and self._text[self._at] not in _SCALAR_END:
                self._at += 1

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip_blank(newlines=True)
            char = self._text[self._at]
            if char == "]":
                self._at += 1
                return
            if char == ",":
                self._at += 1
                continue
            self._note((*path, index), self._at)
            self._value((*path, index))
            index += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip_blank(newlines=True)
            char = self._text[self._at]
            if char == "}":
                self._at += 1
                return
            if char == ",":
                self._at += 1
                continue
            self._pair(path)

    def _string(self) -> str:
        quote = self._text[self._at]
        if self._text.startswith(quote * 3, self._at):
            return self._long_string(quote * 3)
        self._at += 1
        parts = []
        while (char := self._text[self._at]) != quote:
            parts.append(self._escape() if char == "\\" and quote == '"' else self._step())
        self._at += 1
        return "".join(parts)

    def _step(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def _escape(self) -> str:
        letter = self._text[self._at + 1]
        self._at += 2
        length = _CODE_LENGTH.get(letter, 0)
        if not length:
            return _ESCAPES.get(letter, letter)
        code = int(self._text[self._at:self._at + length], 16)
        self._at += length
        return chr(code)

    def _long_string(self, quotes: str) -> str:
        """Skip a multi-line string; its text is no key, so nobody asks for it."""
        self._at += 3
        while not self._text.startswith(quotes, self._at):
            self._at += 2 if quotes[0] == '"' and self._text[self._at] == "\\" else 1
        self._at += 3
        while self._text.startswith(quotes[0], self._at):
            self._at += 1  # up to two quotes may stand right before the closing three
        return ""
