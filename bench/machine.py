"""What machine a run was made on: without that no figure means anything."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PACKAGES = ("uvicorn", "fastapi", "starlette", "flask", "werkzeug", "gunicorn", "watchfiles",
            "hyperbox-tui")
PROGRAMS = {"git": "--version", "rsync": "--version", "inotifywait": "--help",
            "lsyncd": "--version", "unison": "-version", "syncthing": "--version"}


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found.group(1).strip() if found else platform.machine()


def _memory_gib() -> float:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return round(pages * size / 2**30, 1)


def package_versions() -> dict[str, str]:
    """The versions of the Python packages that take part, where they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def program_versions() -> dict[str, str]:
    """The first version number that each peer program prints of itself."""
    found = {}
    for name, flag in PROGRAMS.items():
        if shutil.which(name) is None:
            continue
        done = subprocess.run([name, flag], capture_output=True, text=True, check=False)
        match = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
        found[name] = match.group() if match else "?"
    return found


def file_system(path: Path) -> str:
    """The type of the file system that ``path`` is on."""
    done = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True,
                          check=False)
    return done.stdout.strip() or "?"


def describe(scratch: Path) -> dict[str, Any]:
    """Processor, cores, memory, kernel, file system, versions and the load at the start."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": _memory_gib(),
        "kernel": platform.release(),
        "file_system": file_system(scratch),
        "python": platform.python_version(),
        "packages": package_versions(),
        "programs": program_versions(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }
