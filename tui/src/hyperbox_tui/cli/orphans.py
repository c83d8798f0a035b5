"""What a killed or lost `up` left running, as far as it shows from outside.

An agent listens for the next session; whether it does is asked of the kernel, not of a pid file,
which may be stale.
"""

from __future__ import annotations

import os
import socket

from hyperbox_devcontainer.homes import LOCAL, Home, known_homes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AGENT_SOCKET = "agent.sock"


def orphan_targets(folder: str) -> list[dict[str, Any]]:
    """The targets of a project whose agent still listens on this machine, as `status` shows them.

    Another machine, or a container, is not asked: that takes longer than `status` may.
    """
    found = []
    for home in known_homes(folder):
        local = home.kind == LOCAL and os.path.isdir(home.home)
        run = _run_folder(home.home) if local else None
        if run is not None and listens(os.path.join(run, AGENT_SOCKET)):
            found.append(_target(home, run))
    return found


def _target(home: Home, run: str) -> dict[str, Any]:
    """What the agent wrote down for its successor says what runs."""
    from hyperbox_agent.supervise import records
    from hyperbox_langpacks.base import Rung
    known = records.load(os.path.join(run, records.FILE))
    live = next((one for one in known.instances if one.serial == known.live), None) \
        if known is not None else None
    return {"name": home.target, "kind": home.kind,
            "state": "live" if known is None or known.serving is not None else "broken",
            "number": known.serving if known is not None else None,
            "rung": Rung(live.rung).word if live is not None else None,
            "url": None, "pid": live.pid if live is not None else None, "pending": 0, "error": None}


def _run_folder(home: str) -> str | None:
    from hyperbox_agent.home import find_run_folder
    return find_run_folder(home)


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
