"""Paths from the wire: none may leave the root, none may surprise the side that writes it."""

from __future__ import annotations

from hyperbox_agent.errors import ProtocolError

NAME_LIMIT = 255
PATH_LIMIT = 4095


def check_path(path: str) -> str:
    """``path`` when it is relative, below the root and in plain form. Raises ProtocolError.

    Links are the business of whoever writes: a path that is fine as text may still lead through a
    link that stands in the tree.
    """
    wrong = _fault(path)
    if wrong:
        raise ProtocolError(f"a path that is refused: {path[:200]!r} {wrong}", file=path)
    return path


def check_foreign_path(path: str) -> str:
    """As ``check_path``, for what a target wants written on the workstation.

    Also refuses names that other systems read as separators or drives, everything of git's own, and
    the project's HyperBox configuration: a target must not be able to run code here with them.
    """
    check_path(path)
    parts = path.split("/")
    wrong = None
    if "\\" in path:
        wrong = "holds a backslash"
    elif any(len(part) > 1 and part[1] == ":" and part[0].isalpha() for part in parts):
        wrong = "looks like a drive"
    elif any(_is_git(part) for part in parts):
        wrong = "belongs to git"
    elif parts[-1].casefold() in ("hyperbox.toml", "devcontainer.json", ".devcontainer.json"):
        wrong = "is configuration that runs commands"
    elif any(ord(char) < 32 or ord(char) == 127 for char in path):
        wrong = "holds a control character"
    if wrong:
        raise ProtocolError(f"a path that is refused from a target: {path[:200]!r} {wrong}",
                            file=path)
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


def _is_git(part: str) -> bool:
    # Case-folding file systems, and the characters that some of them leave out of a name.
    plain = part.rstrip(". ").casefold()
    return plain in (".git", "git~1") or "".join(c for c in plain if c.isascii()) == ".git"
