"""Open a connection to an instance, its true client written down before the handshake."""

from __future__ import annotations

import errno
import socket
from enum import Enum

from hyperbox_agent.supervise.peers import PeersTable


class Connected(Enum):
    """How an attempt to reach an instance went."""

    YES = "yes"
    PENDING = "pending"
    REFUSED = "refused"
    EXHAUSTED = "exhausted"
    """This machine is out of descriptors, memory or ports."""


_SPENT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))


def open_connection(address: tuple[str, int], peers: PeersTable, client: tuple[str, int, int],
                    ) -> tuple[socket.socket | Connected, int]:
    """A socket whose handshake is under way, and its local port; or why there is none."""
    host = address[0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return Connected.EXHAUSTED, 0
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    local_port = _name_peer(sock, host, peers, client)
    # A socket that connects to a free port which happens to be its own connects to itself.
    own = local_port == address[1]
    error = errno.ECONNREFUSED if own else sock.connect_ex(address)
    if error in (0, errno.EINPROGRESS):
        return sock, local_port
    peers.drop(local_port)
    sock.close()
    return (Connected.EXHAUSTED if error in _SPENT else Connected.REFUSED), 0


def _name_peer(sock: socket.socket, host: str, peers: PeersTable,
               client: tuple[str, int, int]) -> int:
    """Bind ``sock`` and write who stands behind it. 0: no port was free to bind."""
    try:
        sock.bind(("127.0.0.1" if host.startswith("127.") else "", 0))
    except OSError:
        # Every port is taken or in TIME_WAIT; connecting unbound still finds one.
        return 0
    port: int = sock.getsockname()[1]
    peers.put(port, client)
    return port
