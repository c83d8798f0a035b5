"""What a killed or lost `up` left running, as far as it shows from outside.

The agent listens in its home for the next session; whether it does is asked of the kernel, not of
a pid file, which may be stale.
"""

from __future__ import annotations

import os
import socket

from hyperbox_devcontainer.paths import SOCKET_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = "target-"
AGENT_SOCKET = "agent.sock"


def orphan_targets(home: str) -> list[dict[str, Any]]:
    """The targets below a project's folder whose agent still listens, as `status` shows them."""
    try:
        names = sorted(os.listdir(home))
    except OSError:
        return []
    return [_target(name.removeprefix(PREFIX)) for name in names
            if name.startswith(PREFIX) and _listens(os.path.join(home, name, "run", AGENT_SOCKET))]


def _target(name: str) -> dict[str, Any]:
    return {"name": name, "kind": "process", "state": "live", "number": None, "rung": None,
            "url": None, "pid": None, "pending": False, "error": None, "session": False}


def _listens(path: str) -> bool:
    if len(os.fsencode(path)) > SOCKET_LIMIT:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
