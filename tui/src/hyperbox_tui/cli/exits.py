"""The exit statuses, in one table."""

from __future__ import annotations

from hyperbox_devcontainer.errors import InputError

DONE = 0
FAILED = 1
INPUT_WRONG = 2
ROLLED_BACK = 3
NOT_EXECUTABLE = 126
NOT_FOUND = 127
"""Of `exec`: what a shell says of a command that it can't start."""
INTERRUPTED = 130
"""Ctrl-C ended a verb that was waiting. For ``up`` Ctrl-C is ``down``, which is 0."""
PIPE_CLOSED = 141
"""Who read our output has gone, as after ``| head``: what a shell shows for SIGPIPE."""

MEANING = {
    DONE: "done",
    FAILED: "it failed",
    INPUT_WRONG: "the input was wrong; nothing was changed",
    ROLLED_BACK: "the newest save was rolled back (`flush`)",
    NOT_EXECUTABLE: "the command may not be executed (`exec`)",
    NOT_FOUND: "there is no such command (`exec`)",
    INTERRUPTED: "interrupted by Ctrl-C",
    PIPE_CLOSED: "the reader of the output has gone",
}


class UsageError(InputError):
    """The command line is wrong."""


def status_of(error: BaseException) -> int:
    """The exit status for an error that a verb ended with."""
    if isinstance(error, InputError):
        return INPUT_WRONG
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return PIPE_CLOSED
    return FAILED
