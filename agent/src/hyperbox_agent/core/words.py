"""A command that was written as one string: taken apart where only a shell would do the same."""

from __future__ import annotations

import re

_SYNTAX = re.compile(r"[|&;<>()$`\\\"'*?\[\]#~!\r\n]")
"""What a shell may read as more than a word. ``{port}`` is ours, and no shell touches it."""
_BUILTIN = frozenset((
    ".", ":", "alias", "case", "cd", "command", "eval", "exec", "exit", "export", "for", "if",
    "read", "set", "source", "test", "time", "trap", "ulimit", "umask", "unset", "until", "while",
    "{"))


def argv_of(command: str | tuple[str, ...]) -> tuple[str, ...]:
    """A list as it is; a string by its words where they are plain, else through the shell.

    Without a shell in between the program's own kind is known, so that it can be restarted warm.
    """
    if not isinstance(command, str):
        return command
    words = command.split()
    if not words or _SYNTAX.search(command) or words[0] in _BUILTIN or "=" in words[0]:
        return ("/bin/sh", "-c", command)
    return tuple(words)
