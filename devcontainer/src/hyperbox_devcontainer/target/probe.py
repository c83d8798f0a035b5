"""What a target is: one POSIX script, one round trip, values between random marks.

Whatever a login shell or a profile prints before the marks is thrown away. Values are separated by
NUL, so a home with a newline in its name is read as it is.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from hyperbox_devcontainer.errors import TargetError
from hyperbox_devcontainer.target.base import Target
from hyperbox_devcontainer.target.landing import PYTHONS

SCRIPT = r"""
mark=$1 folder=$2
shift 2
say() { printf '%s\0' "$1" "$2"; }
printf '%s\n' "$mark"
say system "$(uname -s)"
say arch "$(uname -m)"
say kernel "$(uname -r)"
say user "$(id -un 2>/dev/null || id -u)"
say uid "$(id -u)"
say umask "$(umask)"
say home "$HOME"
say shell "$SHELL"
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 2 | tr '\n' ' ')
say libc "$libc"
for python do
    found=$(command -v "$python" 2>/dev/null) || continue
    version=$("$found" -I -S -c 'import sys; sys.stdout.write("%d.%d.%d" % sys.version_info[:3])' \
        2>/dev/null </dev/null) && say python "$version $found"
done
while read -r name value _; do
    case $name in MemTotal:|MemAvailable:) say "$name" "$value" ;; esac
done 2>/dev/null </proc/meminfo
near=$folder
while [ -n "$near" ] && [ ! -d "$near" ]; do near=${near%/*}; done
near=${near:-/}
say disk "$(df -Pk "$near" 2>/dev/null | tail -n 1)"
say inodes "$(df -Pi "$near" 2>/dev/null | tail -n 1)"
[ -w "$near" ] && say writable yes
trial=$near/.hyperbox-$mark
if mkdir "$trial" 2>/dev/null; then
    [ -d "$near/.HYPERBOX-$mark" ] && say folds yes
    rmdir "$trial"
fi
[ -d /proc/sys/fs/inotify ] && say inotify "$(cat /proc/sys/fs/inotify/max_user_watches)"
[ -r /proc/pressure/memory ] && say psi yes
for tool in git uv node go tar; do
    command -v "$tool" >/dev/null 2>&1 && say tool "$tool"
done
printf '\n%s\n' "$mark"
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of the target."""

    path: str
    version: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a target said about itself. None: it could not say."""

    system: str
    arch: str
    kernel: str
    libc: str | None
    user: str
    uid: int
    umask: int
    home: str
    shell: str | None
    pythons: tuple[Interpreter, ...]
    """Those that the agent can run on, newest first."""
    memory: int | None
    """Bytes."""
    memory_free: int | None
    disk_free: int | None
    """Bytes on the filesystem of the folder that was asked about."""
    inodes_free: int | None
    writable: bool
    """Whether the folder, or the nearest one above it that exists, can be written."""
    folds_case: bool
    """Whether ``A`` and ``a`` are one name there."""
    inotify: int | None
    """The limit of watches."""
    psi: bool
    tools: frozenset[str]


async def probe(target: Target, folder: str, *, timeout: float = 15.0) -> Facts:
    """Ask ``target`` what it is and what its folder ``folder`` is like. Raises TargetError."""
    if not folder.startswith("/") or "\0" in folder:
        raise TargetError(f"{target.name}: {folder!r} is not an absolute path", target=target.name,
                          file=folder)
    mark = secrets.token_hex(12)
    ran = await target.run(("sh", "-c", SCRIPT, "sh", mark, folder, *PYTHONS), timeout=timeout)
    values = between(ran.out, mark.encode())
    if values is None:
        said = " ".join((ran.out + b" " + ran.err).decode("utf-8", "replace").split())[-300:]
        raise TargetError(f"{target.name}: it did not answer as a POSIX shell does: {said!r}",
                          target=target.name, hint="is there a `sh` on the target?")
    try:
        return parse(values)
    except (KeyError, ValueError) as error:
        raise TargetError(f"{target.name}: it did not say what it is: {error}",
                          target=target.name) from error


def between(out: bytes, mark: bytes) -> list[tuple[str, str]] | None:
    """The (name, value) pairs between two marks; None where one of the marks is missing."""
    parts = out.split(mark + b"\n")
    if len(parts) < 3:
        return None
    words = parts[-2].rstrip(b"\n").split(b"\0")
    text = [word.decode("utf-8", "surrogateescape") for word in words[:-1]]
    return list(zip(text[::2], text[1::2], strict=True)) if len(text) % 2 == 0 else None


def parse(pairs: list[tuple[str, str]]) -> Facts:
    """Facts from what the script said. Raises KeyError or ValueError where the needed is wrong."""
    said = dict(pairs)
    return Facts(
        system=said["system"], arch=said["arch"], kernel=said["kernel"],
        libc=libc_name(said.get("libc", "")), user=said["user"], uid=int(said["uid"]),
        umask=int(said["umask"], 8), home=said["home"], shell=said.get("shell") or None,
        pythons=_pythons([value for name, value in pairs if name == "python"]),
        memory=_kib(said, "MemTotal:"), memory_free=_kib(said, "MemAvailable:"),
        disk_free=_free(said.get("disk", ""), 1024), inodes_free=_free(said.get("inodes", ""), 1),
        writable="writable" in said, folds_case="folds" in said,
        inotify=int(said["inotify"]) if said.get("inotify", "").isdigit() else None,
        psi="psi" in said, tools=frozenset(value for name, value in pairs if name == "tool"))


def libc_name(said: str) -> str | None:
    """``glibc 2.36``, ``musl 1.2.4``, or None for what is neither."""
    found = re.search(r"musl.*?Version (\d[\d.]*)", said, re.IGNORECASE | re.DOTALL)
    if found:
        return f"musl {found[1]}"
    if re.search(r"musl", said, re.IGNORECASE):
        return "musl"
    found = re.search(r"(?:glibc|libc\)?)\s[^\d]*(\d+\.\d+)", said, re.IGNORECASE)
    return f"glibc {found[1]}" if found else None


def _pythons(said: list[str]) -> tuple[Interpreter, ...]:
    found: dict[str, Interpreter] = {}
    for line in said:
        version, _, path = line.partition(" ")
        numbers = tuple(int(part) for part in version.split("."))
        if numbers >= (3, 10):
            found.setdefault(path, Interpreter(path, numbers))
    # Stable: of equal versions the one that is first on the PATH stays first.
    return tuple(sorted(found.values(), key=lambda one: one.version, reverse=True))


def _kib(said: Mapping[str, str], name: str) -> int | None:
    value = said.get(name, "")
    return int(value) * 1024 if value.isdigit() else None


def _free(line: str, unit: int) -> int | None:
    """The fourth column of ``df -P``; a device name may hold blanks, so count from the right."""
    columns = line.split()
    for index in range(len(columns) - 1, 1, -1):
        if columns[index].endswith("%") or columns[index] == "-":
            free = columns[index - 1]
            return int(free) * unit if free.isdigit() else None
    return None
