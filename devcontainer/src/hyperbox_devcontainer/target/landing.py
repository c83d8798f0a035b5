"""Landing: the agent is put on a target, started there, and reached again later.

Everything goes through one POSIX shell script and its arguments, so nothing depends on the login
shell of the target. Where the right agent is there already, its start is one round trip.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import (
    AgentError,
    LinkLostError,
    LinkTimeoutError,
    ProtocolError,
    VersionError,
)
from hyperbox_agent.home import find_run_folder
from hyperbox_agent.link.attach import NO_AGENT
from hyperbox_agent.link.connection import Link
from hyperbox_agent.link.stream import ByteStream
from hyperbox_agent.link.version import VERSION
from hyperbox_devcontainer.errors import TargetError, TargetTimeoutError, WorkstationError
from hyperbox_devcontainer.target.archive import Archive, build_archive
from hyperbox_devcontainer.target.base import Target

PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python3.10", "python3.14",
           "/usr/bin/python3", "/usr/local/bin/python3", "python")

_FIND_PYTHON = """
find_python() {
    # The first may be one that is known to do: an interpreter's start costs 10 to 40 ms.
    python=$1
    shift
    [ -n "$python" ] && [ -x "$python" ] && return 0
    for python do
        command -v "$python" >/dev/null 2>&1 &&
            "$python" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null &&
            return 0
    done
    return 1
}
"""

_PRIVATE = """
keep_private() {
    # Only what is ours: the program, and the tree that it is given, get the user's own umask.
    [ -d "${1%/*}/" ] || mkdir -p "${1%/*}/"
    (umask 077; mkdir -p "$1/agent" "$1/logs" && : >>"$1/logs/agent.log")
}
"""

SERVE = _FIND_PYTHON + _PRIVATE + """
mark=$1 archive=$2 want=$3 home=$4
shift 4
find_python "$@" || { echo "$mark no-python"; exit 0; }
keep_private "$home" 2>/dev/null && kept=yes || kept=
got=$(sha256sum <"$archive" 2>/dev/null || "$python" -I -S -c 'if 1:
    import hashlib, sys
    print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())' <"$archive" 2>/dev/null)
[ "${got%% *}" = "$want" ] || { echo "$mark absent"; exit 0; }
[ -z "$kept" ] || exec 2>>"$home/logs/agent.log"
exec "$python" -I "$archive" serve --home "$home"
"""
"""Says ``mark word`` instead of a hello where the agent can't be started."""

ATTACH = _FIND_PYTHON + """
mark=$1 home=$2
shift 2
archive=
for file in "$home"/agent/hyperbox-agent-*.pyz; do
    [ -f "$file" ] && { [ -z "$archive" ] || [ "$file" -nt "$archive" ]; } && archive=$file
done
[ -n "$archive" ] || { echo "$mark absent"; exit 0; }
find_python "$@" || { echo "$mark no-python"; exit 0; }
exec "$python" -I "$archive" attach --home "$home"
"""

INSTALLED = _PRIVATE + """
python=$1 home=$2
keep_private "$home" && exec 2>>"$home/logs/agent.log"
exec "$python" -I -m hyperbox_agent serve --home "$home"
"""


@runtime_checkable
class SocketTarget(Protocol):
    """A target that can reach a unix socket without a program in between."""

    async def open_socket(self, path: str, *, timeout: float) -> ByteStream:
        """A stream to the socket at ``path``. Raises TargetError."""
        ...


async def land_agent(target: Target, home: str, *, clock: Clock, timeout: float,
                     packs: Sequence[str] = ()) -> Link:
    """A started link to a new agent that runs from its archive in ``home``.

    The archive is put there only when it is absent or damaged. Raises TargetError, VersionError.
    """
    archive = build_archive(packs)
    path = f"{home}/agent/{archive.name}"
    said = await _serve_packed(target, home, path, archive, clock, timeout)
    if said == "absent":
        await target.put(path, archive.data, mode=0o600, timeout=timeout)
        said = await _serve_packed(target, home, path, archive, clock, timeout)
    if isinstance(said, Link):
        return said
    if said == "no-python":
        raise TargetError(f"{target.name}: no Python of 3.10 or newer was found there",
                          target=target.name, hint="install python3 on the target")
    raise TargetError(f"{target.name}: the agent was put there but did not arrive as it was sent",
                      target=target.name, file=path, hint="look for a full or failing disk")


async def start_installed(target: Target, home: str, *, clock: Clock, timeout: float) -> Link:
    """A started link to a new agent that runs from the installed package of ``target.python``.

    Raises TargetError, VersionError.
    """
    if target.python is None:
        raise TargetError(f"{target.name}: it is not known which Python has the agent installed",
                          target=target.name)
    argv = ("sh", "-c", INSTALLED, "sh", target.python, home)
    link, error = await _greet(target, argv, clock, timeout, survives=True)
    if error is not None:
        raise await _not_started(target, home, error)
    return link


async def start_agent(target: Target, argv: Sequence[str], *, clock: Clock,
                      timeout: float) -> Link:
    """A started link to what ``argv`` starts, where that speaks for itself: an image that brings
    its agent, the memory target. Raises TargetError, VersionError."""
    link, error = await _greet(target, argv, clock, timeout, survives=True)
    if isinstance(error, VersionError):
        raise error
    if error is not None:
        raise TargetError(f"{target.name}: the agent did not start: {error.message}",
                          target=target.name, hint=error.hint) from error
    return link


async def attach_agent(target: Target, home: str, *, clock: Clock, timeout: float) -> Link | None:
    """A started link to the agent that lives in ``home``; None where none does.

    Raises VersionError where another version lives there, LinkTimeoutError where it doesn't
    answer, TargetError.
    """
    if isinstance(target, SocketTarget):
        run = find_run_folder(home)
        if run is None:
            return None
        try:
            stream = await target.open_socket(f"{run}/agent.sock", timeout=timeout)
        except TargetTimeoutError:
            raise  # somebody listens, but does not accept: that is not nobody
        except TargetError:
            return None
        return await _start(stream, clock, timeout)
    mark = secrets.token_hex(8)
    argv = ("sh", "-c", ATTACH, "sh", mark, home, *_pythons(target))
    link, error = await _greet(target, argv, clock, timeout)
    if error is None:
        return link
    if isinstance(error, LinkLostError) or NO_AGENT in link.noise or mark in link.noise:
        return None
    raise error


async def _serve_packed(target: Target, home: str, path: str, archive: Archive, clock: Clock,
                        timeout: float) -> Link | str:
    """The link, or the word that the script said instead."""
    mark = secrets.token_hex(8)
    argv = ("sh", "-c", SERVE, "sh", mark, path, archive.digest, home, *_pythons(target))
    link, error = await _greet(target, argv, clock, timeout, survives=True)
    if error is None:
        return link
    if mark in link.noise:
        return link.noise.rpartition(mark)[2].strip()
    raise await _not_started(target, home, error)


async def _greet(target: Target, argv: Sequence[str], clock: Clock, timeout: float, *,
                 survives: bool = False) -> tuple[Link, AgentError | None]:
    """A link that was started, or why it was not; what the other side said is in its noise."""
    stream = await target.open(argv, survives=survives, timeout=timeout)
    link = Link(stream, role="session", clock=clock)
    try:
        await link.start({"version": VERSION}, timeout)
    except (ProtocolError, LinkLostError, LinkTimeoutError) as error:
        return link, error
    return link, None


async def _start(stream: ByteStream, clock: Clock, timeout: float) -> Link | None:
    link = Link(stream, role="session", clock=clock)
    try:
        await link.start({"version": VERSION}, timeout)
    except LinkLostError:
        return None  # it ended in this very moment
    return link


async def _not_started(target: Target, home: str,
                       error: AgentError) -> AgentError | WorkstationError:
    """What to raise for an agent that did not say hello: with the end of its log."""
    if isinstance(error, VersionError):
        return error
    try:
        log = await target.run(("tail", "-n", "4", f"{home}/logs/agent.log"), timeout=5)
        told = " ".join(log.out.decode("utf-8", "replace").split())[-600:]
    except TargetError:
        told = ""
    message = f"{target.name}: the agent did not start: {error.message}"
    return TargetError(f"{message}; its log ends with: {told}" if told else message,
                       target=target.name, file=f"{home}/logs/agent.log", hint=error.hint)


def _pythons(target: Target) -> tuple[str, ...]:
    """The arguments of ``find_python``."""
    return (target.python or "", *PYTHONS)
