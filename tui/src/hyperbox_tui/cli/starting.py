"""What `up` knows before the session is open: its first lines and its first status."""

from __future__ import annotations

import shlex
from typing import Any

from hyperbox_devcontainer.config import Config
from hyperbox_tui.view.spans import Span, Style

_SHORT = 24
"""Columns of a reason, such as a file and a line, that may stand behind the command."""


def starting_status(config: Config) -> dict[str, Any]:
    """The project as `status` shows it until the session is open."""
    target = {"name": config.target.name, "kind": config.target.kind, "state": "starting",
              "number": None, "rung": None, "url": None, "pid": None, "pending": False,
              "error": None}
    return {"name": config.project.name, "path": config.project.root, "targets": [target]}


def starting_lines(config: Config, style: Style) -> list[list[Span]]:
    """What is brought up and why: the command, and who said it."""
    command = config.app.command
    shown = command if isinstance(command, str) else shlex.join(
        part.removeprefix(config.project.root + "/") for part in command or ())
    why = config.origin("app.command")
    where = "" if config.target.mode == "in-place" else f" on {config.target.name}, mirrored"
    lines = [[Span(f"{style.mark('working')} ", "working"), Span(config.project.name, "title"),
              Span(f"{where}  "), Span(shown)]]
    reason = Span(f"  {why.where or why.word}", "dim")
    if len(reason.text) > _SHORT:
        lines.append([reason])
    else:
        lines[0].append(reason)
    notes = config.detected.notes if config.detected else ()
    return lines + [[Span(f"{style.mark('warning')} ", "working"), Span(note)] for note in notes]
