"""After an agent was killed inside a batch: finish the batch, then wake the program.

A process of its own, started by the port holder, which outlives the agent. The program was frozen
for the batch and would stay so; woken alone, it would read a mixed tree.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time

from hyperbox_agent.apply.tree import Tree
from hyperbox_agent.errors import AgentError, TreeInUseError
from hyperbox_agent.jsonfile import read_json
from hyperbox_agent.supervise import procfs
from hyperbox_agent.supervise.family import marked

CONFIGURED = "configured.json"
"""In the home: what runs here, for whoever finds what a killed agent left."""


def mark_of(home: str) -> str:
    """What all that is started for this home bears in its environment."""
    name = os.path.abspath(home).encode("utf-8", "surrogateescape")
    return hashlib.sha256(name).hexdigest()[:12]


def mend(home: str) -> None:
    """Bring the tree to one state and let every stopped process of the program go on.

    Where the tree can't be had (the next agent has it already), that one mends it before it asks
    anything of the program.
    """
    try:
        _finish_batch(home)
    finally:
        _wake(mark_of(home))


def _finish_batch(home: str) -> None:
    known = read_json(os.path.join(home, CONFIGURED))
    if not isinstance(known, dict) or known.get("mode") != "mirror":
        return
    try:
        tree = Tree(str(known["root"]), home, session=str(known["session"]))
        try:
            tree.recover()
        finally:
            tree.close()
    except TreeInUseError:
        return
    except AgentError as error:
        os.write(2, f"{time.strftime('%F %T')} mending {home}: {error.message}\n".encode())


def _wake(mark: str) -> None:
    for stat in marked(mark + "-", frozenset()):
        if stat.state == "T":
            procfs.send(stat.pid, stat.start, signal.SIGCONT)
