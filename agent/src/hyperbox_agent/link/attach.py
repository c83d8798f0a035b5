"""``attach``: this process's standard input and output, led to the agent that lives in a home.

It is what reaches a living agent through whatever can only start programs (an ``exec`` of a
container engine, an SSH session). It reads nothing of what it carries, and imports little: its
start is part of every reconnect.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys

from hyperbox_agent.home import find_run_folder

NO_AGENT = "hyperbox: no agent lives here"
"""Said on standard output instead of a hello."""
CONNECT_LIMIT = 5.0
CHUNK = 256 * 1024


def attach(home: str) -> int:
    """Copy until either side ends; gives the exit status, 3 where no agent lives."""
    try:
        sock = _connect(os.path.join(find_run_folder(home) or home, "agent.sock"))
    except OSError:
        sys.stdout.write(f"{NO_AGENT}\n")
        sys.stdout.flush()
        return 3
    with sock:
        return _copy(sock)


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(CONNECT_LIMIT)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    sock.settimeout(None)
    return sock


def _copy(sock: socket.socket) -> int:
    """Blocking writes on purpose: a slow reader of one direction then stops its writer. The other
    direction stands still meanwhile, which a link survives: it never writes without reading."""
    with selectors.DefaultSelector() as watch:
        watch.register(0, selectors.EVENT_READ)
        watch.register(sock, selectors.EVENT_READ)
        while True:
            for key, _ in watch.select():
                try:
                    ended = _pass(0, sock.fileno()) if key.fd == 0 else _pass(sock.fileno(), 1)
                except OSError:
                    return 1
                if ended and key.fd != 0:
                    return 0
                if ended:
                    # The session is gone: the agent must read an end, and may say its last.
                    watch.unregister(0)
                    sock.shutdown(socket.SHUT_WR)


def _pass(source: int, target: int) -> bool:
    """Pass on what is there; True at the end of ``source``."""
    data = os.read(source, CHUNK)
    view = memoryview(data)
    while view:
        view = view[os.write(target, view):]
    return not data
