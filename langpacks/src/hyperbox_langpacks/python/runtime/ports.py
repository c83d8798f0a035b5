"""Moves the program's ``bind`` of the public port to a private one, and hides that from it.

The agent holds the public port and relays to the private one, so a new version can start beside the
old. The program goes on seeing the address it asked for, and its clients' true addresses.
"""

from __future__ import annotations

import os

from .peers import PEERS
from .report import REPORTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping as EnvMapping
    from types import ModuleType
    from typing import Any

LOOPBACK = "127.0.0.1"
MAPPED_LOOPBACK = "::ffff:127.0.0.1"
INHERITED = "HYPERBOX_MAPPED"
"""Tells spawned workers, which get a bound socket by its number, which ports are mapped."""


class Mapping:
    """One private port and the address that the program believes to have."""

    __slots__ = ("address", "private")

    def __init__(self, private: int, address: tuple[Any, ...]) -> None:
        self.private = private
        self.address = address


class Ports:
    """What is mapped in this process and in those that it was started by."""

    __slots__ = ("asked", "by_private", "on_traffic", "public")

    def __init__(self) -> None:
        self.public: int | None = None
        self.asked: frozenset[int] = frozenset()
        self.by_private: dict[int, Mapping] = {}
        self.on_traffic: Callable[[], None] = _nothing

    def configure(self, environ: EnvMapping[str, str]) -> None:
        """Learn the public port, and what a parent process mapped."""
        public = environ.get("HYPERBOX_PUBLIC_PORT", "")
        self.public = int(public) if public.isdigit() else None
        # The public one may have been chosen for a program that says another in its own words.
        ports = (public, environ.get("HYPERBOX_OWN_PORT", "")) if public else ()
        self.asked = frozenset(int(port) for port in ports if port.isdigit())
        self.by_private = {}
        for record in filter(None, environ.get(INHERITED, "").split("|")):
            private, port, host = record.split(",", 2)
            address = (host, int(port), 0, 0) if ":" in host else (host, int(port))
            self.by_private[int(private)] = Mapping(int(private), address)

    def is_public(self, address: object) -> bool:
        """Whether a program that binds this address wants the agent's port."""
        return (isinstance(address, tuple) and len(address) >= 2
                and address[1] in self.asked)

    def remember(self, private: int, address: tuple[Any, ...]) -> None:
        """Note a mapping, for us and for the processes that we start."""
        self.by_private[private] = Mapping(private, address)
        os.environ[INHERITED] = "|".join(
            f"{one.private},{one.address[1]},{one.address[0]}" for one in self.by_private.values())

    def announce(self, private: int) -> None:
        """Tell the agent that connections to the private port are taken from now on."""
        REPORTER.queue("listening", port=private, public=self.public)
        self.on_traffic()
        REPORTER.flush()

    def shared(self) -> int | None:
        """The private port that a further listener beside the first one joins."""
        return next(iter(self.by_private), None)


def _nothing() -> None:
    return None


PORTS = Ports()


def adapt_socket(module: ModuleType) -> None:
    """Hook the class that every Python socket comes from."""
    adapt_socket_class(module.socket, module)


def adapt_socket_class(kind: Any, module: Any) -> None:
    """Hook ``bind``, ``listen``, ``accept`` and the two names of one socket class."""
    raw_bind, raw_listen, raw_accept = kind.bind, kind.listen, kind.accept
    raw_name, raw_peer = kind.getsockname, kind.getpeername
    inet, inet6 = module.AF_INET, module.AF_INET6

    def bind(self: Any, address: Any, /) -> None:
        if not PORTS.is_public(address) or self.family not in (inet, inet6) \
                or self.type != module.SOCK_STREAM:
            raw_bind(self, address)
            return
        raw_bind(self, _private_address(self, module))
        PORTS.remember(raw_name(self)[1], _asked(address, self.family == inet6))

    def listen(self: Any, /, *backlog: Any) -> None:
        raw_listen(self, *backlog)
        mapping = _mapping(self)
        if mapping is not None:
            PORTS.announce(mapping.private)

    def accept(self: Any, /) -> tuple[Any, Any]:
        connection, address = raw_accept(self)
        if PORTS.by_private and _mapping(self) is not None:
            address = PEERS.true_address(address)
            PORTS.on_traffic()
        return connection, address

    def getsockname(self: Any, /) -> Any:
        name = raw_name(self)
        mapping = _mapped_name(name)
        if mapping is None:
            return name
        return _public_name(name, mapping, _is_connected(self, raw_peer))

    def getpeername(self: Any, /) -> Any:
        peer = raw_peer(self)
        if PORTS.by_private and _mapping(self) is not None:
            return PEERS.true_address(peer)
        return peer

    def _mapping(sock: Any) -> Mapping | None:
        if not PORTS.by_private or sock.family not in (inet, inet6):
            return None
        return _mapped_name(raw_name(sock))

    for hook in (bind, listen, accept, getsockname, getpeername):
        hook.__doc__ = getattr(kind, hook.__name__).__doc__
        hook.__qualname__ = f"socket.{hook.__name__}"
        setattr(kind, hook.__name__, hook)


def _private_address(sock: Any, module: Any) -> tuple[Any, ...]:
    """Where to bind instead: any free port, or the one that its siblings share by REUSEPORT."""
    reuse = getattr(module, "SO_REUSEPORT", None)
    port = 0
    if reuse is not None and sock.getsockopt(module.SOL_SOCKET, reuse):
        port = PORTS.shared() or 0
    if sock.family == module.AF_INET:
        return (LOOPBACK, port)
    # The relay comes by IPv4; a socket that takes both families can bind the mapped loopback.
    sock.setsockopt(module.IPPROTO_IPV6, module.IPV6_V6ONLY, 0)
    return (MAPPED_LOOPBACK, port)


def _asked(address: tuple[Any, ...], is_v6: bool) -> tuple[Any, ...]:
    """The address as ``getsockname`` would have given it after the bind that was asked for."""
    host, port = address[0], address[1]
    if is_v6:
        rest = tuple(address[2:4])
        return (host or "::", port, *rest, *(0,) * (2 - len(rest)))
    if host in ("", "0.0.0.0"):  # noqa: S104 - recognised, not bound
        return ("0.0.0.0", port)  # noqa: S104
    return (LOOPBACK if host == "localhost" else host, port)


def _mapped_name(name: Any) -> Mapping | None:
    if isinstance(name, tuple) and len(name) >= 2 and name[0] in (LOOPBACK, MAPPED_LOOPBACK):
        return PORTS.by_private.get(name[1])
    return None


def _is_connected(sock: Any, raw_peer: Callable[[Any], Any]) -> bool:
    try:
        raw_peer(sock)
    except OSError:
        return False
    return True


def _public_name(name: tuple[Any, ...], mapping: Mapping, connected: bool) -> tuple[Any, ...]:
    """What the program sees: its own address, or on a connection the loopback and its port."""
    if not connected:
        return mapping.address
    return (name[0], mapping.address[1], *name[2:])
