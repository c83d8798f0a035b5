"""Writes the shim and the worker where the project's interpreter can read them.

The packs may lie in a zip archive (the ``.pyz`` that is put on a target) that the project's Python
can't or needn't import from, so its own files are copied out once, by their digest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

from hyperbox_langpacks.base import PackError

WORKER = "worker.py"
_AT_TOP = {"sitecustomize.py": "sitecustomize.py", "run.py": "run.py",
           "worker_main.py": WORKER}
PACKAGE = "_hyperbox"


def runtime_sources() -> dict[str, bytes]:
    """The files that run in the project's interpreter, by their place in the shim folder."""
    from importlib import resources  # dear, and for who starts a program, not who looks at one
    folder = resources.files(__package__).joinpath("runtime")
    sources = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".py"):
            place = _AT_TOP.get(entry.name, f"{PACKAGE}/{entry.name}")
            sources[place] = entry.read_bytes()
    return sources


def shim_folder(code_dir: str) -> str:
    """The folder with the shim and the worker, made if need be. Raises PackError."""
    sources = runtime_sources()
    folder = os.path.join(code_dir, f"shim-{_digest(sources)}")
    try:
        _write_missing(folder, sources)
    except OSError as error:
        raise PackError(f"the shim can't be written to {folder}: {error.strerror}",
                        file=folder) from error
    return folder


def _digest(sources: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for place, text in sources.items():
        total.update(place.encode() + b"\0" + text + b"\0")
    return total.hexdigest()[:12]


def _write_missing(folder: str, sources: Mapping[str, bytes]) -> None:
    """Write what is not there. The last rename makes it whole: a half folder has no worker."""
    if os.path.exists(os.path.join(folder, WORKER)):
        return
    for made in (folder, os.path.join(folder, PACKAGE)):
        os.makedirs(made, mode=0o700, exist_ok=True)
    for place, text in sorted(sources.items(), key=lambda one: one[0] == WORKER):
        path = os.path.join(folder, place)
        draft = f"{path}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o600), "wb") as file:
            file.write(text)
        os.replace(draft, path)
