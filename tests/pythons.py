"""Where other versions of Python stand on this machine.

``python tests/pythons.py 3.10`` prints the path of that version, ``newest`` of the newest that
runs; exit status 1: there is none.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def _candidates() -> Iterator[str]:
    """Every file that could be a Python 3.N: those on PATH, then pyenv's."""
    for folder in os.get_exec_path():
        yield from sorted(map(str, Path(folder).glob("python3.*")))
    home = os.environ.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv")
    yield from sorted(map(str, Path(home, "versions").glob("3.*/bin/python")))


def version_of(path: str) -> tuple[int, int] | None:
    """Its version, from running it: shims on PATH name versions that are not there."""
    show = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([path, "-I", "-c", show], capture_output=True, text=True, timeout=20,
                              check=True)
        major, minor = map(int, done.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return major, minor


@functools.cache
def all_pythons() -> dict[tuple[int, int], str]:
    """One interpreter by version; a file whose name tells its version is run once a version."""
    found: dict[tuple[int, int], str] = {}
    for path in _candidates():
        if not re.search(r"python3\.\d+$|/bin/python$", path) or not os.access(path, os.X_OK):
            continue
        version = version_of(path)
        if version is not None:
            found.setdefault(version, path)
    return found


@functools.cache
def find_python(version: str) -> str | None:
    """An interpreter of this version, "3.10", or None. Looks first where it most likely is."""
    wanted = tuple(map(int, version.split(".")))
    likely = shutil.which(f"python{version}")
    if likely is not None and version_of(likely) == wanted:
        return likely
    return all_pythons().get((wanted[0], wanted[1]))


def newest_python() -> str:
    """The newest interpreter of this machine."""
    pythons = all_pythons()
    return pythons[max(pythons)] if pythons else sys.executable


if __name__ == "__main__":
    answer = newest_python() if sys.argv[1] == "newest" else find_python(sys.argv[1])
    if answer is None:
        sys.exit(1)
    print(answer)
