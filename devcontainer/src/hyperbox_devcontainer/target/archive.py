"""The agent as one file: a ``.pyz`` of our two lower rooms, equal bytes for equal sources."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

from hyperbox_devcontainer.errors import WorkstationError

PACKAGES = ("hyperbox_agent", "hyperbox_langpacks")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member: the oldest that a zip can hold, never the day of the build."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The agent, ready to be put somewhere."""

    data: bytes
    digest: str
    """SHA-256 of the data, hexadecimal."""

    @property
    def name(self) -> str:
        """Its file name."""
        return f"hyperbox-agent-{self.digest[:12]}.pyz"


def build_archive(packs: Sequence[str] = ()) -> Archive:
    """The archive of this process's own code and of the packages of third-party ``packs``.

    Built once a process. Raises WorkstationError for a package that can't be found or is not pure
    Python.
    """
    return _build(tuple(packs))


@lru_cache(maxsize=4)
def _build(packs: tuple[str, ...]) -> Archive:
    members = {"__main__.py": _bootstrap()}
    for package in (*PACKAGES, *packs):
        members.update(_members(package))
    return pack(members.items())


def pack(members: Iterable[tuple[str, bytes]]) -> Archive:
    """A deterministic zip of (name, bytes) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, data in sorted(members):
            member = zipfile.ZipInfo(name, EPOCH)
            member.external_attr = 0o644 << 16
            member.create_system = 3  # else the byte says which system packed it
            member.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(member, data)
    data = b"#!/usr/bin/env python3\n" + buffer.getvalue()
    return Archive(data, hashlib.sha256(data).hexdigest())


def _bootstrap() -> bytes:
    with open(os.path.join(os.path.dirname(__file__), "bootstrap.py"), "rb") as file:
        return file.read()


def _members(package: str) -> Iterator[tuple[str, bytes]]:
    for folder in _folders(package):
        for parent, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(files):
                path = os.path.join(parent, name)
                inside = f"{package}/{os.path.relpath(path, folder)}".replace(os.sep, "/")
                if name.endswith((".so", ".pyd", ".dylib")):
                    raise WorkstationError(
                        f"{package} holds {name}: compiled code can't go to every target",
                        file=path, hint="a pack must be pure Python")
                if not name.endswith((".pyc", ".pyo")):
                    with open(path, "rb") as file:
                        yield inside, file.read()


def _folders(package: str) -> Sequence[str]:
    spec = find_spec(package) if "." not in package else None
    if spec is None or not spec.submodule_search_locations:
        raise WorkstationError(f"there is no package {package!r} to ship with the agent",
                               key=package)
    return list(spec.submodule_search_locations)
