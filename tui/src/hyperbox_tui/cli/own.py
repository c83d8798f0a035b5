"""The command line that starts this very command again, for what runs the product from outside."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def own_command(*words: str) -> list[str]:
    """``hyperbox WORDS``. -P: a project's own modules never stand in the way of ours."""
    return [sys.executable, "-P", "-m", "hyperbox_tui.cli.main", *words]


def other_command(environ: Mapping[str, str]) -> str | None:
    """The `hyperbox` that is first on PATH where it is not this one; the name is taken on PyPI."""
    from shutil import which
    first = which("hyperbox", path=environ.get("PATH"))
    if first is None:
        return None
    ours = os.path.join(os.path.dirname(sys.executable), "hyperbox")
    same = os.path.realpath(first) in (os.path.realpath(ours), os.path.realpath(sys.argv[0]))
    return None if same or _is_ours(first) else first


def _is_ours(path: str) -> bool:
    """Whether a script is one that an installer made for our entry point."""
    try:
        with open(path, "rb") as file:
            return b"hyperbox_tui.cli" in file.read(4096)
    except OSError:
        return False
