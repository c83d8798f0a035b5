"""Bind the project's port, or say who has it."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from dataclasses import dataclass

from hyperbox_agent.errors import PortError, PortTakenError

BACKLOG = 65535
"""More than the kernel allows on purpose (it cuts at net.core.somaxconn): the queue is what a
reload of the holder itself lives on."""
_LISTEN = "0A"
_TRIES = 20
_MAPPED = bytes(10) + b"\xff\xff"
"""What stands before an IPv4 address in an IPv6 one."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has a port."""

    pid: int | None
    command: str
    uid: int | None = None


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for ``host:port``; ``localhost`` is both loopbacks where there are two.

    Port 0 takes a free one. Raises PortError, PortTakenError where another program has the port.
    """
    for _ in range(_TRIES):
        first = _bind(_resolve(host, port), port)
        sockets = [first]
        if host != "localhost" or not _has_ipv6():
            return sockets
        try:
            sockets.append(_bind((socket.AF_INET6, "::1"), first.getsockname()[1]))
        except PortTakenError:
            first.close()
            if port:
                raise
            continue
        return sockets
    raise PortError("no port is free on both 127.0.0.1 and ::1")


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


_OURS = re.compile(r"hyperbox_agent serve --home \S*/projects/(\S+)-[0-9a-f]{8}(?:/|…|$)")
"""The command line of an agent that holds a port for the project that it names."""


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    if host == "localhost":
        return socket.AF_INET, "127.0.0.1"
    try:
        infos = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)  # noqa: S104
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise PortError(f"{host!r} is no address of this machine: {error}", key="host") from error
    family, _type, _proto, _name, address = infos[0]
    return family, str(address[0])


def _bind(where: tuple[socket.AddressFamily, str], port: int) -> socket.socket:
    family, host = where
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit these two, which saves two calls for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        raise _refusal(host, port, error) from error
    return sock


def _refusal(host: str, port: int, error: Exception) -> PortError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return _taken(host, port)
    if number == errno.EACCES:
        return PortError(f"port {port} may not be opened by this user", key="port",
                         hint="choose a port of 1024 or above in [app] port")
    if number == errno.EADDRNOTAVAIL:
        return PortError(f"{host} is not an address of this machine", key="host")
    return PortError(f"can't listen on {host}:{port}: {error}", key="port")


def _taken(host: str, port: int) -> PortTakenError:
    owner = find_owner(host, port)
    what = f"port {port} on {host} is taken"
    if owner is None:
        return PortTakenError(
            f"{what}, by no program that can be seen here", pid=None, program=None,
            hint="a connection that used it may linger for a minute (TIME_WAIT), or a program in "
                 "another namespace has it; choose another [app] port, or try again",
        )
    if owner.pid is None:
        return PortTakenError(
            f"{what} by a program of user {owner.uid}", pid=None, program=None,
            hint=f"see which: sudo ss -ltnp 'sport = :{port}'",
        )
    ours = _OURS.search(owner.command)
    if ours is not None:
        return PortTakenError(
            f"{what} by HyperBox itself, for the project {ours[1]}", pid=owner.pid,
            program=owner.command,
            hint="`hyperbox down` in that project ends it; or choose another [app] port here")
    return PortTakenError(
        f"{what} by process {owner.pid}: {owner.command}", pid=owner.pid, program=owner.command,
        hint=f"end it (kill {owner.pid}), or choose another [app] port",
    )


def find_owner(host: str, port: int) -> Owner | None:
    """Who listens on ``host:port``, else who else uses it; None where nobody can be found."""
    inodes = _inodes(host, port)
    for inode, uid in inodes.items():
        pid = _holder_of(inode)
        if pid is not None:
            return Owner(pid, _command(pid), uid)
    return Owner(None, "", next(iter(inodes.values()))) if inodes else None


def _inodes(host: str, port: int) -> dict[str, int]:
    """Sockets bound to the address or to all of them, listening ones first: inode → uid."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    mark = f":{port:04X} "  # the tables may have 10,000 lines in TIME_WAIT
    found: list[tuple[bool, str, int]] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            if mark not in line:
                continue
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if int(number, 16) == port and fields[9] != "0" and _overlap(address, packed):
                found.append((fields[3] != _LISTEN, fields[9], int(fields[7])))
    return {inode: uid for _other, inode, uid in sorted(found)}


def _overlap(address: str, packed: bytes) -> bool:
    """Whether an address of the kernel's table (words in host order) excludes ours."""
    words = [bytes.fromhex(address[at : at + 8]) for at in range(0, len(address), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    theirs = b"".join(words)
    return not any(theirs) or not any(packed) or theirs.removeprefix(_MAPPED) == packed


def _holder_of(inode: str) -> int | None:
    link = f"socket:[{inode}]"
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        folder = f"/proc/{name}/fd"
        try:
            if any(os.readlink(f"{folder}/{fd}") == link for fd in os.listdir(folder)):
                return int(name)
        except OSError:  # ended meanwhile, or another user's
            continue
    return None


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
    except OSError:
        return "?"
    text = b" ".join(words).decode("utf-8", "replace")
    return text if len(text) <= 120 else text[:119] + "…"
