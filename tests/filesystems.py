"""Filesystems of their own for tests: small ones, full ones, ones that fold names. Root only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def unmount(folder: str) -> None:
    """Also when a process that a test killed a moment ago still holds it."""
    if subprocess.run(["umount", folder], check=False, capture_output=True).returncode:
        _run("umount", "-l", folder)


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[str]:
    """A tmpfs with ``options`` (``size=8m,nr_inodes=200``) at ``folder``."""
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield str(folder)
    finally:
        unmount(str(folder))


def remount(folder: str, options: str) -> None:
    _run("mount", "-o", f"remount,{options}", folder)


@contextmanager
def exfat(folder: Path, image: Path) -> Iterator[str]:
    """exFAT through FUSE: folds case, and has neither modes nor links nor an exchange."""
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    _run("mkfs.exfat", str(image))
    device = _run("losetup", "--find", "--show", str(image)).strip()
    try:
        # Not by "mount -t": that asks the kernel for a module first.
        _run("mount.exfat-fuse", device, str(folder))
        try:
            yield str(folder)
        finally:
            unmount(str(folder))
    finally:
        _run("losetup", "--detach", device)
