"""What a value must be. Each check returns the value as the rest of the house wants it.

A value that is wrong raises Wrong, which says what was expected; where it stands and what it is
called is known one floor up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

RUNGS = ("nothing", "notify", "patch", "warm", "restore", "cold", "reinstall", "rebuild")
KINDS = ("process",)
LONGEST = 86_400.0
"""Seconds: a day. More is a slip of the unit."""


class Wrong(Exception):  # noqa: N818 -- a verdict about a value, turned into ConfigError at once
    """A value is not what it must be."""

    def __init__(self, expected: str, *, hint: str | None = None,
                 sub: tuple[str | int, ...] = ()) -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint
        self.sub = sub
        """The place inside the value: a table's key, a list's index."""


def shown(value: Any) -> str:
    """A value as an error names it: its TOML kind, and its text where that is short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def text(value: Any) -> str:
    """Text without NUL, not empty."""
    if not isinstance(value, str):
        raise Wrong("text in quotes")
    if not value.strip():
        raise Wrong("text that is not empty")
    if "\0" in value:
        raise Wrong("text without NUL")
    return value


def flag(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise Wrong("true or false")
    return value


def port(value: Any) -> int:
    """A port number."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        hint = "write it without quotes" if isinstance(value, str) and value.isdigit() else None
        raise Wrong("a port number from 1 to 65535", hint=hint)
    return value


def host(value: Any) -> str:
    """An address to listen at."""
    from ipaddress import ip_address
    if text(value) == "localhost":
        return str(value)
    try:
        return str(ip_address(value))
    except ValueError:
        raise Wrong('"localhost", or an IP address of this machine') from None


def seconds(value: Any) -> float:
    """A duration: a plain number of seconds."""
    if isinstance(value, str) and value[:1].isdigit():
        raise Wrong("a number of seconds", hint="durations are plain numbers: 1.5")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Wrong("a number of seconds")
    if not 0 <= value <= LONGEST:
        raise Wrong(f"a number of seconds from 0 to {LONGEST:.0f}")
    return float(value)


def _each(value: Any, check: Callable[[Any], Any], what: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise Wrong(what)
    return tuple(_inside(item, check, (index,)) for index, item in enumerate(value))


def _inside(value: Any, check: Callable[[Any], Any], sub: tuple[str | int, ...]) -> Any:
    try:
        return check(value)
    except Wrong as wrong:
        raise Wrong(wrong.expected, hint=wrong.hint, sub=sub + wrong.sub) from None


def texts(value: Any) -> tuple[str, ...]:
    """One text, or a list of texts."""
    return _each([value] if isinstance(value, str) else value, text, "text or a list of texts")


def command(value: Any) -> tuple[str, ...] | str:
    """A string for the shell, or a list of arguments of which the first is a program."""
    if isinstance(value, str):
        return text(value)
    argv = _each(value, _argument, "a list of arguments, or a string for the shell")
    if not argv or not argv[0]:
        raise Wrong("a list that begins with a program")
    return argv


def _argument(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise Wrong("text in quotes")
    return value


def commands(value: Any) -> tuple[tuple[str, ...] | str, ...]:
    """One command as a string, or a list of commands."""
    return _each([value] if isinstance(value, str) else value, command,
                 "a command as a string, or a list of commands")


def environment(value: Any) -> dict[str, str]:
    """A table of names and texts. Numbers are taken as they are written."""
    if not isinstance(value, dict):
        raise Wrong("a table of names and texts")
    return {_variable(name): _inside(item, _env_text, (name,)) for name, item in value.items()}


def _variable(name: str) -> str:
    if not name or "=" in name or "\0" in name:
        raise Wrong("a variable's name without = and NUL", sub=(name,))
    return name


def _env_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        hint = "write true or false in quotes" if isinstance(value, bool) else None
        raise Wrong("text in quotes", hint=hint)
    if "\0" in str(value):
        raise Wrong("text without NUL")
    return str(value)


def patterns(value: Any) -> tuple[str, ...]:
    """A list of patterns."""
    return _each(value, text, "a list of patterns")


def pattern(value: Any) -> str:
    """A regular expression."""
    try:
        re.compile(text(value))
    except re.error as error:
        raise Wrong(f"a regular expression ({error})") from None
    return str(value)


def health(value: Any) -> str:
    """A path of the program."""
    if not text(value).startswith("/") or any(c.isspace() or ord(c) < 33 for c in value):
        raise Wrong('a path that begins with "/"')
    return str(value)


def inner_path(value: Any) -> str:
    """A folder below the root."""
    path = text(value)
    if path.startswith("/") or ".." in path.split("/"):
        raise Wrong("a folder below the project's root")
    return "" if path.rstrip("/") == "." else path.rstrip("/")


def tree_path(value: Any) -> str:
    """Where a mirrored tree is kept: absolute, or below the home folder."""
    path = text(value)
    if not path.startswith(("/", "~/")):
        raise Wrong('an absolute path, or one that begins with "~/"')
    return path


def _one_of(value: Any, words: Iterable[str], what: str) -> str:
    words = tuple(words)
    if value not in words or not isinstance(value, str):
        from hyperbox_devcontainer.suggest import near
        close = near(value, words) if isinstance(value, str) else None
        raise Wrong(f"{what}: {', '.join(words)}",
                    hint=f"did you mean `{close}`?" if close else None)
    return value


def rung(value: Any) -> str:
    """A word of the ladder."""
    return _one_of(value, RUNGS, "a rung")


def mode(value: Any) -> str:
    """How the target gets the tree."""
    if value == "two-way":
        raise Wrong("in-place or mirror",
                    hint="two-way comes with the container targets; `[sync] pull` brings single "
                         "files back today")
    return _one_of(value, ("in-place", "mirror"), "a mode")


def kind(value: Any) -> str:
    """What kind of target it is."""
    return _one_of(value, KINDS, "a kind of target that exists")
