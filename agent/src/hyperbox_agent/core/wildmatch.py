"""Glob patterns as regular expressions, with the exact meaning that git and docker give them.

Both match bytes: a ``?`` is one byte of a name, not one character. Text here is therefore "byte
text": a str whose characters are all below 256, one a byte (``byte_text`` makes it).
"""

from __future__ import annotations

import os
import re
import string

SPECIAL = "*?[\\"
"""The characters that make a pattern more than a literal (git's ``is_glob_special``)."""

_BYTES = [chr(i) for i in range(1, 256)]
_GRAPH = set(string.ascii_letters + string.digits + string.punctuation)
_CLASSES: dict[str, set[str]] = {
    "alnum": set(string.ascii_letters + string.digits),
    "alpha": set(string.ascii_letters),
    "blank": set(" \t"),
    "cntrl": {chr(i) for i in range(1, 32)} | {"\x7f"},
    "digit": set(string.digits),
    "graph": _GRAPH,
    "lower": set(string.ascii_lowercase),
    "print": _GRAPH | {" "},
    "punct": set(string.punctuation),
    # git's own ctype knows no vertical tab and no form feed as space.
    "space": set(" \t\n\r"),
    "upper": set(string.ascii_uppercase),
    "xdigit": set(string.hexdigits),
}


def byte_text(text: str) -> str:
    """``text`` (as ``os.fsdecode`` gives it) as one character a byte; ASCII stays as it is."""
    return text if text.isascii() else os.fsencode(text).decode("latin-1")


def file_text(text: str) -> str:
    """The inverse of ``byte_text``."""
    return text if text.isascii() else os.fsdecode(text.encode("latin-1"))


def ascii_lower(text: str) -> str:
    """Byte text with only A–Z lowered: the fold of ``core.ignorecase``."""
    return text.lower() if text.isascii() else text.encode("latin-1").lower().decode("latin-1")


def literal_length(pattern: str) -> int:
    """How many characters stand before the first special one."""
    for i, char in enumerate(pattern):
        if char in SPECIAL:
            return i
    return len(pattern)


def git_regex(pattern: str, *, pathname: bool, fold: bool = False) -> str | None:
    """git's wildmatch as the body of a regular expression (for DOTALL, fullmatch).

    ``pathname``: ``*``, ``?`` and classes stop at a slash and ``**`` between slashes does not. With
    ``fold`` the expression is for text that went through ``ascii_lower``. None: matches nothing.
    """
    out: list[str] = []
    i, end = 0, len(pattern)
    while i < end:
        char = pattern[i]
        if char == "*":
            piece, i = _stars(pattern, i, pathname)
        elif char == "[":
            found = _bracket(pattern, i + 1, pathname, fold)
            if found is None:
                return None
            piece, i = found
        elif char == "?":
            piece, i = ("[^/]" if pathname else "."), i + 1
        elif char == "\\":
            if i + 1 == end:
                return None
            # An escaped capital is not folded by git, so it meets no folded text: kept so.
            piece, i = re.escape(pattern[i + 1]), i + 2
        else:
            piece, i = re.escape(ascii_lower(char) if fold else char), i + 1
        out.append(piece)
    return "".join(out)


def _stars(pattern: str, start: int, pathname: bool) -> tuple[str, int]:
    i = start
    while i < len(pattern) and pattern[i] == "*":
        i += 1
    if not pathname:
        return ".*", i
    rest = pattern[i:]
    opened = start == 0 or pattern[start - 1] == "/"
    if i - start >= 2 and opened and (not rest or rest.startswith(("/", "\\/"))):
        return ("(?:.*/)?", i + 1) if rest.startswith("/") else (".*", i)
    return "[^/]*", i


def _bracket(pattern: str, i: int, pathname: bool, fold: bool) -> tuple[str, int] | None:
    """A character class from behind its ``[``; None where git gives up on the whole pattern."""
    negated = pattern[i:i + 1] in ("!", "^") and i < len(pattern)
    if negated:
        i += 1
    members = _members(pattern, i, fold)
    if members is None:
        return None
    chosen, i = members
    chars = [c for c in _BYTES if (c in chosen) != negated and not (pathname and c == "/")]
    if not chars:
        return "(?!)", i
    return "[" + "".join(f"\\x{ord(c):02x}" for c in chars) + "]", i


def _members(pattern: str, i: int, fold: bool) -> tuple[set[str], int] | None:
    """Reads up to the closing bracket, as wildmatch.c does, its oddities included."""
    chosen: set[str] = set()
    previous = ""
    first = True
    while True:
        if i >= len(pattern):
            return None
        char = pattern[i]
        if char == "]" and not first:
            return chosen, i + 1
        first = False
        following = pattern[i + 1:i + 2]
        if char == "\\":
            if not following:
                return None
            chosen.add(following)
            previous, i = following, i + 2
        elif char == "-" and previous and following and following != "]":
            i += 1
            if following == "\\":
                i += 1
                following = pattern[i:i + 1]
                if not following:
                    return None
            chosen |= _range(previous, following, fold)
            previous, i = "", i + 1
        elif char == "[" and following == ":":
            close = pattern.find("]", i + 2)
            if close < 0:
                return None
            if close == i + 2 or pattern[close - 1] != ":":
                chosen.add("[")
                previous, i = "[", i + 1
                continue
            named = _CLASSES.get(pattern[i + 2:close - 1])
            if named is None:
                return None
            chosen |= named
            if fold and pattern[i + 2:close - 1] == "upper":
                chosen |= _CLASSES["lower"]
            previous, i = "", close + 1
        else:
            chosen.add(char)
            previous, i = char, i + 1


def _range(low: str, high: str, fold: bool) -> set[str]:
    found = {c for c in _BYTES if low <= c <= high}
    if fold:
        found |= {c for c in _CLASSES["lower"] if low <= c.upper() <= high}
    return found


def docker_regex(pattern: str) -> str | None:
    """A cleaned pattern of a ``.dockerignore`` as moby's patternmatcher reads it; None: nothing."""
    out: list[str] = []
    i, end = 0, len(pattern)
    while i < end:
        char = pattern[i]
        i += 1
        if char == "*" and pattern[i:i + 1] == "*":
            alone = i == 1 and literal_length(pattern[2:]) == end - 2
            i += 1
            slash = pattern[i:i + 1] == "/"
            i += slash
            # moby takes a leading "**" before a literal for a plain test of the end.
            any_end = i >= end or (alone and not slash)
            out.append(".*" if any_end else "(?:.*/)?")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\" and i < end:
            out.append(re.escape(pattern[i]))
            i += 1
        elif char == "[":
            found = _docker_class(pattern, i)
            if found is None:
                return None
            piece, i = found
            out.append(piece)
        else:
            out.append(re.escape(char))
    return "".join(out)


def _docker_class(pattern: str, i: int) -> tuple[str, int] | None:
    """A class from behind its ``[``. For Go's regexp, which moby uses, a slash is no exception."""
    negated = pattern[i:i + 1] == "^"
    i += negated
    chosen: set[str] = set()
    first = True
    while i < len(pattern) and (first or pattern[i] != "]"):
        first = False
        i += pattern[i] == "\\" and i + 1 < len(pattern)
        low = high = pattern[i]
        if pattern[i + 1:i + 2] == "-" and pattern[i + 2:i + 3] not in ("", "]"):
            high = pattern[i + 2]
            i += 2
        chosen |= _range(low, high, fold=False)
        i += 1
    if i >= len(pattern):
        return None
    chars = [c for c in _BYTES if (c in chosen) != negated]
    return ("[" + "".join(f"\\x{ord(c):02x}" for c in chars) + "]" if chars else "(?!)"), i + 1
