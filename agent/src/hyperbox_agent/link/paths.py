"""Paths from the wire: none may leave the root, none may surprise the side that writes it."""

from __future__ import annotations

import re

from hyperbox_agent.errors import ProtocolError

NAME_LIMIT = 255
PATH_LIMIT = 4095


_PLAIN = re.compile(r"\.?[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/\.?[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
"""What nearly all paths are like; the rest is looked at more closely, at six times the price."""


def check_path(path: str) -> str:
    """``path`` when it is relative, below the root and in plain form. Raises ProtocolError.

    Links are the business of whoever writes: a path that is fine as text may still lead through a
    link that stands in the tree. So is what a target may not write on the workstation
    (``core.plan.validate_pulled``).
    """
    if len(path) <= NAME_LIMIT and _PLAIN.fullmatch(path):
        return path
    wrong = _fault(path)
    if wrong:
        raise ProtocolError(f"a path that is refused: {path[:200]!r} {wrong}", file=path)
    return path


def _fault(path: str) -> str | None:
    if not path:
        return "is empty"
    if path.startswith("/"):
        return "is absolute"
    if "\0" in path:
        return "holds a NUL"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty, '.' or '..' part"
    return _length_fault(path, parts)


def _length_fault(path: str, parts: list[str]) -> str | None:
    # The limits are the kernel's, in bytes; a lone surrogate is no file name anywhere.
    try:
        size = len(_raw(path))
        long_part = size > NAME_LIMIT and any(len(_raw(part)) > NAME_LIMIT for part in parts)
    except UnicodeEncodeError:
        return "is not text"
    return "is too long" if long_part or size > PATH_LIMIT else None


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
