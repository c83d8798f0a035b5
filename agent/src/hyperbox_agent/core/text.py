"""Text from outside, made harmless before a person's terminal gets it.

``safe_text`` is the one wall between what programs, files and peers say and the person's terminal:
no control character, no half of a surrogate and no direction override passes it.
"""

from __future__ import annotations

import re

SGR = re.compile(r"\x1b\[[0-9;:]*m")
"""What sets colours and weights of a terminal, and nothing else."""
_RESET = "\x1b[0m"
_OVERRIDES = frozenset((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029, 0x200E,
                        0x200F, 0x061C, 0xFEFF))
"""Characters that turn the reading direction or break lines: what is shown would not be what is."""


class _Harmless(dict[int, str]):
    """A translation table that finds what to escape by rule, and remembers it."""

    def __init__(self, kept: str) -> None:
        super().__init__((ord(char), char) for char in kept)

    def __missing__(self, code: int) -> str:
        char = shown(code)
        if len(self) < 4096:
            self[code] = char
        return char


def shown(code: int) -> str:
    """What stands for a character: itself, or its number where it would act."""
    if code < 0x20 or 0x7F <= code < 0xA0:
        return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # a byte of a name that is not UTF-8
    if 0xD800 <= code <= 0xDFFF or code in _OVERRIDES:
        return f"\\u{code:04x}"
    return chr(code)


_TEXT = _Harmless("\n\t")
_LINE = _Harmless("")


def safe_text(text: str) -> str:
    """Text that may have several lines: newline and tab stay, all else that is not plain shows."""
    return text if text.isascii() and text.isprintable() else text.translate(_TEXT)


def safe_line(text: str) -> str:
    """Text that must stay in its line, such as a file's name: newlines and tabs show, too."""
    return text if text.isascii() and text.isprintable() else text.translate(_LINE)


def program_line(text: str, *, colour: bool) -> str:
    """A line that the program wrote: on a terminal its colours stay, nothing else of it acts.

    Of a line that overwrites itself (a progress bar) the last state is shown.
    """
    if "\r" in text:
        text = next((part for part in reversed(text.split("\r")) if part), "")
    if "\x1b" not in text:
        return safe_text(text)
    if not colour:
        return safe_text(SGR.sub("", text))
    parts = []
    at = 0
    for found in SGR.finditer(text):
        parts += [safe_text(text[at:found.start()]), found[0]]
        at = found.end()
    return "".join((*parts, safe_text(text[at:]), _RESET if at else ""))
