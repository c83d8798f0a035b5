"""Whether a new version may take traffic, and what was seen when it may not."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.generation import Failure
from hyperbox_agent.supervise import procfs
from hyperbox_agent.supervise.blame import python_error
from hyperbox_agent.supervise.limits import cancel
from hyperbox_agent.supervise.probe import Address, Answer, NoAnswerError, get
from hyperbox_agent.supervise.process import Exit

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.02
_BAD_PAUSE = 0.05
_NOT_YET = frozenset({429, 502, 503, 504})
"""Statuses by which a program says that it is not ready yet: asked again until the time is up."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as healthy."""

    port: int | None
    health: str | None = None
    has_ready: bool = False
    """A line of output says that the program is ready."""
    ready_after: float = 1.0
    start_timeout: float = 30.0
    baseline: int | None = None
    """What the old version answered to the same question."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a health check."""

    failure: Failure | None = None
    status: int | None = None
    """What it answered, for the next version's baseline."""
    signal: int | None = None
    """The signal that killed it."""


class Subject(Protocol):
    """A starting instance, as health sees it."""

    @property
    def root(self) -> str:
        """The tree that it runs from."""
        ...

    @property
    def oom_before(self) -> int | None:
        """Processes that the kernel had killed for memory when it was started."""
        ...

    @property
    def backend(self) -> asyncio.Future[Address]:
        """Where it answers, once that is known."""
        ...

    @property
    def ready_line(self) -> asyncio.Future[str]:
        """The line that says that it is ready."""
        ...

    async def ended(self) -> Exit:
        """Return when it has ended and all its output has been read."""
        ...

    def last_errors(self) -> Sequence[str]:
        """The last lines of its stderr."""
        ...


class _BadAnswerError(Exception):
    """It answered, and the answer is no good."""


_SILENT = 20
"""Connections that the program took and closed without an answer: some may be a server that is not
set up yet, so many (one to two seconds of asking) are a handler that fails."""


def judge(answer: Answer, health: str | None, baseline: int | None) -> str | None:
    """What is wrong with an answer; None: nothing."""
    status = answer.status
    if status is None:
        return "its answer was not HTTP" if health is not None else None
    if health is not None:
        return None if 200 <= status < 400 else f"HTTP {status}"
    if status >= 500 and not (baseline is not None and baseline >= 500):
        return f"HTTP {status}"
    return None


async def check(subject: Subject, rules: Rules, clock: Clock) -> Verdict:
    """Wait until the instance is healthy, has ended, has answered badly or its time is up."""
    seen = _Seen(rules)
    ready = asyncio.ensure_future(_until_ready(subject, rules, seen, clock))
    ended = asyncio.ensure_future(subject.ended())
    limit = asyncio.ensure_future(clock.sleep(rules.start_timeout))
    try:
        await asyncio.wait({ready, ended, limit}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return after_exit(ended.result(), subject)
        if ready.done():
            return _after_answer(ready, subject)
        message = f"{seen.what} in {rules.start_timeout:g} s"
        unheard = rules.port is not None and not subject.backend.done()
        return Verdict(_failure(message, subject, seen_only=True,
                                hint=_ANOTHER_PORT if unheard else None))
    finally:
        ended.cancel()
        limit.cancel()
        await cancel(ready)


class _Seen:
    """What has been seen so far, in words that fit before "in 30 s"."""

    def __init__(self, rules: Rules) -> None:
        self.what = "not alive long enough"
        if rules.port is not None:
            self.what = f"it did not listen on port {rules.port}"
        elif rules.has_ready:
            self.what = "no line of its output matched [reload] ready"


def _after_answer(ready: asyncio.Future[int | None], subject: Subject) -> Verdict:
    error = ready.exception()
    if error is None:
        return Verdict(status=ready.result())
    if isinstance(error, _BadAnswerError):
        return Verdict(_failure(str(error), subject))
    raise error


def after_exit(how: Exit, subject: Subject) -> Verdict:
    """The verdict on an instance that ended when it should have run."""
    oom_after = procfs.oom_kills() if how.signal == signal.SIGKILL else None
    words = exit_words(how, subject.oom_before, oom_after)
    return Verdict(_failure(words, subject), signal=how.signal)


def exit_words(how: Exit, oom_before: int | None, oom_after: int | None) -> str:
    """How it ended, with the likely reason for a kill that nobody asked for."""
    if how.signal == signal.SIGKILL:
        if oom_before is not None and oom_after is not None and oom_after > oom_before:
            return f"{how}: the memory limit of its cgroup was reached"
        return f"{how} (out of memory?)"
    return str(how)


_ANOTHER_PORT = ("if it listens on another port by now: hyperbox down, then hyperbox up; "
                 "or let it listen on $PORT")


def _failure(message: str, subject: Subject, *, seen_only: bool = False,
             hint: str | None = None) -> Failure:
    lines = subject.last_errors()
    blame = python_error(lines, subject.root)
    if blame is not None and not seen_only:
        return Failure("health", f"{blame.message} ({message})", blame.path, blame.line)
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Failure("health", f"{message}; last words: {last[:300]}" if last else message,
                   hint=_hint(lines) or hint)


def says_in_use(lines: Sequence[str]) -> bool:
    """Whether a program complains that an address is taken."""
    return any("ddress already in use" in line or "EADDRINUSE" in line for line in lines)


def _hint(lines: Sequence[str]) -> str | None:
    if says_in_use(lines):
        return ("HyperBox holds the program's port: let the program listen on $PORT, "
                "or write {port} in [app] command")
    return None


async def _until_ready(subject: Subject, rules: Rules, seen: _Seen, clock: Clock) -> int | None:
    if rules.has_ready and rules.health is None:
        await asyncio.shield(subject.ready_line)
        if rules.port is not None:
            await asyncio.shield(subject.backend)
        return None
    if rules.port is None:
        await clock.sleep(rules.ready_after)
        return None
    return await _until_answer(await asyncio.shield(subject.backend), rules, seen, clock)


async def _until_answer(address: Address, rules: Rules, seen: _Seen, clock: Clock) -> int | None:
    pause, bad, silent = _FIRST_PAUSE, 0, 0
    path, host = rules.health or "/", f"localhost:{rules.port}"
    while True:
        try:
            seen.what = "no answer"
            answer = await get(address, path, host, clock)
            wrong = judge(answer, rules.health, rules.baseline)
            if wrong is None:
                return answer.status
            bad += answer.status not in _NOT_YET
            seen.what = f"{wrong} at {path}"
            if bad > 1:
                raise _BadAnswerError(seen.what)
            # Once more: the first request may have met a program that was not set up yet, and its
            # traceback needs a moment to come through the pipe.
            await clock.sleep(_BAD_PAUSE)
        except (OSError, NoAnswerError) as error:
            seen.what = _connect_words(error)
            silent += isinstance(error, NoAnswerError)
            if silent > _SILENT:
                raise _BadAnswerError(f"{seen.what} at {path}") from error
            await clock.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)


def _connect_words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, NoAnswerError):
        return "the connection was closed without an answer"
    return f"no connection ({error})"
