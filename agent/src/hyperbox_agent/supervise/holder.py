"""The port holder: a small process that owns the listening socket and relays to the live instance.

Started by ``port.py`` as ``python -I -S -c BOOTSTRAP code_path run_dir control_fd``, the same from
a source folder and from a ``.pyz``. It outlives its agent on purpose; see PORT.md beside this file.
Every import happens at start: the archive that it came from may be replaced later.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys

from hyperbox_agent.supervise.holder_control import Control
from hyperbox_agent.supervise.holder_loop import Loop
from hyperbox_agent.supervise.holder_relay import Relay
from hyperbox_agent.supervise.peers import PEERS_NAME, PeersTable

PROCESS_NAME = "hyperbox-port"


def main(run_dir: str, control_fd: int) -> None:
    """Serve until the agent says close or nobody needs it any more."""
    _settle_in()
    loop = Loop()
    peers = PeersTable(os.path.join(run_dir, PEERS_NAME))
    relay = Relay(loop, peers)
    Control(loop, relay, run_dir, socket.socket(fileno=control_fd))
    loop.run()
    peers.close()
    os.unlink(peers.path)


def _settle_in() -> None:
    """Be deaf to the terminal, take as many descriptors as are allowed, have a name."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(PROCESS_NAME)


def run_from_arguments() -> None:
    """The entry of the bootstrap: ``code_path run_dir control_fd``."""
    main(sys.argv[2], int(sys.argv[3]))
