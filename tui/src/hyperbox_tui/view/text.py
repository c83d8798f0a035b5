"""Text measured and fitted. What makes it harmless is ``hyperbox_agent.core.text``."""

from __future__ import annotations

from hyperbox_agent.core.text import SGR, program_line, safe_line, safe_text, shown

__all__ = ["cell_width", "char_width", "fit", "json_text", "program_line", "safe_line",
           "safe_text"]


def char_width(char: str) -> int:
    """The cells that a character takes on a terminal."""
    if char < "\u0300":
        return 1
    from unicodedata import category, east_asian_width
    if category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def cell_width(text: str) -> int:
    """The cells that a line takes on a terminal."""
    return len(text) if text.isascii() else sum(map(char_width, text))


def fit(text: str, width: int, ellipsis: str = "…") -> str:
    """``text`` in at most ``width`` cells, with an ellipsis where something was cut."""
    if cell_width(text) <= width:
        return text
    room = width - cell_width(ellipsis)
    if room < 0:
        return ""
    kept = []
    for char in text:
        room -= char_width(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + ellipsis


def json_text(value: object) -> object:
    """A JSON value whose texts every parser takes: lone surrogates show as ``\\xff``, and colours,
    which are for a terminal, are left out."""
    if isinstance(value, str):
        value = SGR.sub("", value) if "\x1b" in value else value
        return value if value.isascii() or not _has_surrogate(value) else "".join(
            shown(ord(char)) if "\ud800" <= char <= "\udfff" else char for char in value)
    if isinstance(value, dict):
        return {json_text(key): json_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_text(item) for item in value]
    return value


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)
