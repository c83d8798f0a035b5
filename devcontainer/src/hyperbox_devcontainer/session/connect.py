"""Reaching a target's agent: the one that runs there already, else a new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import AgentError
from hyperbox_agent.link.connection import Link
from hyperbox_devcontainer.session.options import SessionOptions
from hyperbox_devcontainer.target.landing import (
    attach_agent,
    land_agent,
    start_agent,
    start_installed,
)
from hyperbox_devcontainer.target.memory import MemoryTarget
from hyperbox_devcontainer.target.process import ProcessTarget

TIMEOUT = 15.0


class Connector(Protocol):
    """Gives a started link to the target's agent."""

    async def connect(self, *, start: bool = True) -> Link | None:
        """Attach to the agent that lives there; else start one, or None where not ``start``.

        Raises AgentError or WorkstationError.
        """
        ...

    async def close(self) -> None:
        """Let go of the target; what runs there goes on."""
        ...


class ProcessConnector:
    """The agent as a process of this machine."""

    def __init__(self, options: SessionOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._target = ProcessTarget(options.target)

    async def connect(self, *, start: bool = True) -> Link | None:
        """See Connector. Mirrored, the agent is put there as an archive and started from it."""
        home = self._options.home
        living = await attach_agent(self._target, home, clock=self._clock, timeout=TIMEOUT)
        if living is not None or not start:
            return living
        if self._options.mode == "mirror":
            return await land_agent(self._target, home, clock=self._clock, timeout=TIMEOUT)
        return await start_installed(self._target, home, clock=self._clock, timeout=TIMEOUT)

    async def close(self) -> None:
        """See Connector."""
        await self._target.close()


class MemoryConnector:
    """The agent as a program of a target in this process: what is brought, not put there."""

    def __init__(self, target: MemoryTarget, clock: Clock,
                 argv: Sequence[str] = ("hyperbox-agent", "serve")) -> None:
        """``argv``: the program of the target that serves its standard streams as an agent."""
        self._target = target
        self._clock = clock
        self._argv = tuple(argv)

    async def connect(self, *, start: bool = True) -> Link | None:
        """See Connector. What the agent remembers outlives its programs, so a new one attaches."""
        if not start and self._argv[0] not in self._target.programs:
            return None
        return await start_agent(self._target, self._argv, clock=self._clock, timeout=TIMEOUT)

    async def close(self) -> None:
        """See Connector."""
        await self._target.close()


def make_connector(options: SessionOptions, clock: Clock) -> Connector:
    """The connector of a target's kind."""
    if options.kind != "process":
        raise AgentError(f"there is no target kind {options.kind!r} yet", key="kind",
                         hint='kind = "process"')
    return ProcessConnector(options, clock)
