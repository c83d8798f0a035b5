"""What a killed or lost `up` left running, as far as it shows from outside.

An agent listens for the next session; whether it does is asked of the kernel, not of a pid file,
which may be stale.
"""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOMES = "homes"
"""The file in a project's folder where sessions note the homes of their targets, one a line."""
AGENT_SOCKET = "agent.sock"


def orphan_targets(folder: str) -> list[dict[str, Any]]:
    """The targets of a project whose agent still listens, as `status` shows them."""
    return [_target(home) for home in _homes(folder) if os.path.isdir(home) and _agent_lives(home)]


def _homes(folder: str) -> list[str]:
    try:
        with open(os.path.join(folder, HOMES), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().split("\n")[:-1]
    except OSError:
        return []


def _target(home: str) -> dict[str, Any]:
    name = os.path.basename(home).removeprefix("target-")
    return {"name": name, "kind": "process", "state": "live", "number": None, "rung": None,
            "url": None, "pid": None, "pending": 0, "error": None}


def _agent_lives(home: str) -> bool:
    from hyperbox_agent.home import find_run_folder
    run = find_run_folder(home)
    return run is not None and listens(os.path.join(run, AGENT_SOCKET))


def listens(path: str) -> bool:
    """Whether somebody takes connections at a unix socket; a file that a killed one left does not.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
