"""What is run around a reload: ``pre``, the pack's steps, ``post``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.words import argv_of
from hyperbox_agent.errors import ProgramError
from hyperbox_agent.supervise.config import AppConfig, ShellOrArgv
from hyperbox_agent.supervise.instance import Sink, log_event
from hyperbox_agent.supervise.limits import within
from hyperbox_agent.supervise.output import Line
from hyperbox_agent.supervise.process import Spawn
from hyperbox_agent.supervise.starter import Starter
from hyperbox_agent.supervise.steps import failed, run_step

STEP_TIMEOUT = 1800.0
"""A first install compiles things at times; nothing sensible takes half an hour."""


class Chores:
    """Each raises ProgramError for a command that fails; cancelled, it ends what it started."""

    def __init__(self, config: AppConfig, starter: Starter, mark: str, clock: Clock,
                 sink: Sink) -> None:
        self._config = config
        self._starter = starter
        self._mark = mark
        self._clock = clock
        self._sink = sink

    async def before(self, number: int, root: str) -> None:
        """``[reload] pre``."""
        for command in self._config.pre:
            await self.step("[reload] pre", command, number, root)

    async def after(self, number: int, root: str) -> None:
        """``[reload] post``. What fails here is told; the version is live already."""
        for command in self._config.post:
            try:
                await self.step("[reload] post", command, number, root)
            except ProgramError as error:
                self._sink({"event": "problem", "message": error.message, "number": number})
                return

    async def step(self, what: str, command: ShellOrArgv, number: int, root: str,
                   env: Mapping[str, str] | None = None, cwd: str = "") -> None:
        """One command, run to its end in the program's environment; its output is told."""
        whole = {**self._starter.env(root), **(env or {}), "HYPERBOX_NUMBER": str(number)}
        shown = command if isinstance(command, str) else " ".join(command)

        def emit(stream: str, line: Line) -> None:
            event: dict[str, Any] = log_event(stream, number, line)
            event["step"] = shown
            self._sink(event)

        spawned = Spawn(argv_of(command), whole, os.path.join(root, cwd))
        try:
            ran = await within(self._clock, STEP_TIMEOUT,
                               run_step(spawned, emit, self._clock, self._mark))
        except TimeoutError:
            raise ProgramError(f"{what} {shown!r} did not end in {STEP_TIMEOUT:g} s") from None
        if not ran.ok:
            raise failed(f"{what} {shown!r}", ran)
