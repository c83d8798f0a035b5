"""Reaching a target's agent: the one that runs there already, else a new one."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Protocol

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import AgentError, LinkTimeoutError
from hyperbox_agent.home import find_run_folder
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
GONE = 5.0
"""Seconds that a killed process gets to be gone."""


class Connector(Protocol):
    """Gives a started link to the target's agent."""

    async def connect(self, *, start: bool = True) -> Link | None:
        """Attach to the agent that lives there; else start one, or None where not ``start``.

        Raises AgentError or WorkstationError.
        """
        ...

    async def end_agent(self) -> None:
        """End an agent that no longer answers, by force and alone: what it ran is left for the
        next one to find."""
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

    async def end_agent(self) -> None:
        """See Connector."""
        await asyncio.to_thread(kill_agent, self._options.home)

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

    async def end_agent(self) -> None:
        """See Connector."""
        self._target.cut_streams()  # here an agent is no more than its stream

    async def close(self) -> None:
        """See Connector."""
        await self._target.close()


async def reach_hard(connector: Connector) -> Link | None:
    """A link to the agent, or to its successor where it is there and does not answer: to end it.

    Raises AgentError, WorkstationError.
    """
    try:
        return await connector.connect()
    except LinkTimeoutError:
        await connector.end_agent()
        return await connector.connect()


def kill_agent(home: str) -> None:
    """End the agent of this home on this machine, if there is one. Blocking."""
    run = find_run_folder(home)
    if run is None:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ours:
        ours.settimeout(GONE)
        try:
            ours.connect(f"{run}/agent.sock")
            # Of a listening socket it is who began to listen; that needs no answer from it.
            raw = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid = int.from_bytes(raw[:4], sys.byteorder)
            watched = os.pidfd_open(pid)
        except OSError:
            return
    try:
        signal.pidfd_send_signal(watched, signal.SIGKILL)
        select.select([watched], [], [], GONE)
    except ProcessLookupError:
        return
    finally:
        os.close(watched)


def make_connector(options: SessionOptions, clock: Clock) -> Connector:
    """The connector of a target's kind."""
    if options.kind != "process":
        raise AgentError(f"there is no target kind {options.kind!r} yet", key="kind",
                         hint='kind = "process"')
    return ProcessConnector(options, clock)
