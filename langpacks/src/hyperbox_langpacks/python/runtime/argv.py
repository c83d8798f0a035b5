"""Reads a command line of Python's own as Python would. Pure; the pack uses it too."""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
# Patterns as text, compiled at their first use: most who load this module need one of them at most.
_PYTHON = r"^(python|pypy)[0-9.]*[tdw]?$"
_SHEBANG = rb"^#!\s*(\S+)"
_LONG_SHEBANG = rb"^#!/bin/sh\n'''exec' \"?([^\"\n]+?)\"? \"\$0\" \"\$@\""


class Invocation:
    """What an interpreter is asked to run: options, then a script, ``-m`` or ``-c``."""

    __slots__ = ("arguments", "kind", "options", "target")

    def __init__(self, options: tuple[str, ...], kind: str, target: str,
                 arguments: tuple[str, ...]) -> None:
        self.options = options
        self.kind = kind
        """``"script"``, ``"module"``, ``"command"`` or ``"none"`` (reads standard input)."""
        self.target = target
        self.arguments = arguments

    def __repr__(self) -> str:
        return f"Invocation({self.options}, {self.kind!r}, {self.target!r}, {self.arguments})"


def looks_like_python(program: str) -> bool:
    """Whether a program's name is one that Python interpreters have."""
    return re.match(_PYTHON, os.path.basename(program)) is not None


def read_arguments(arguments: Sequence[str]) -> Invocation:
    """Split what follows the interpreter on its command line."""
    options: list[str] = []
    rest = list(arguments)
    while rest:
        one = rest.pop(0)
        if one in ("-", "--") or not one.startswith("-"):
            if one == "--":
                one = rest.pop(0) if rest else ""
            return Invocation(tuple(options), "script" if one not in ("", "-") else "none", one,
                              tuple(rest))
        if one in _WITH_VALUE:
            options += [one, *rest[:1]]
            del rest[:1]
            continue
        found = _module_or_command(one, rest)
        if found is not None:
            flags, kind, target = found
            return Invocation((*options, *flags), kind, target, tuple(rest))
        options.append(one)
    return Invocation(tuple(options), "none", "", ())


def _module_or_command(one: str, rest: list[str]) -> tuple[tuple[str, ...], str, str] | None:
    """``-m`` and ``-c``, also at the end of a bundle (``-um``) and with their value attached."""
    if one.startswith(("--", "-W", "-X")):
        return None
    for place, letter in enumerate(one[1:], start=1):
        if letter in "mc":
            flags = (one[:place],) if place > 1 else ()
            target = one[place + 1:] or (rest.pop(0) if rest else "")
            return flags, "module" if letter == "m" else "command", target
        if letter in "WX":
            return None
    return None


def shebang_interpreter(head: bytes) -> str | None:
    """The interpreter that a script names in its first line, also in pip's form for long paths."""
    found = re.match(_LONG_SHEBANG, head) or re.match(_SHEBANG, head)
    return os.fsdecode(found.group(1)) if found else None
