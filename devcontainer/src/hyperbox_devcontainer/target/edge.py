"""Where foreign exceptions become errors of ours, and where time limits are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from hyperbox_agent.errors import LinkLostError
from hyperbox_devcontainer.errors import TargetError, TargetTimeoutError

T = TypeVar("T")

OUTPUT_LIMIT = 64 << 20
"""Bytes of a command's output."""


async def limited(target: str, what: str, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; TargetTimeoutError when the time is over, after work was cancelled.

    OSError and LinkLostError of ``work`` become TargetError.
    """
    with mapped(target, what):
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError as error:
            raise TargetTimeoutError(f"{target}: {what} took longer than {seconds:g} s",
                                     target=target) from error


@contextmanager
def mapped(target: str, what: str) -> Iterator[None]:
    """OSError and LinkLostError inside become TargetError, saying which target and what for."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else None
        raise TargetError(f"{target}: {what}: {error.strerror or error}", target=target,
                          file=name) from error
    except LinkLostError as error:
        raise TargetError(f"{target}: {what}: {error.message}", target=target) from error


def check_argv(target: str, argv: Sequence[str]) -> tuple[str, ...]:
    """``argv`` as it may be started. Raises TargetError."""
    if not argv or not argv[0] or any("\0" in word for word in argv):
        raise TargetError(f"{target}: a command must have a name and no NUL", target=target)
    return tuple(argv)


def check_absolute(target: str, path: str) -> str:
    """``path`` as it may be written. Raises TargetError."""
    if not path.startswith("/") or "\0" in path or path.endswith("/"):
        raise TargetError(f"{target}: {path!r} is not an absolute path of a file",
                          target=target, file=path)
    return path


def not_found(target: str, program: str) -> TargetError:
    """The error for a program that is not there."""
    return TargetError(f"{target}: there is no program {program!r}", target=target, file=program,
                       hint="install it there, or give its absolute path")
