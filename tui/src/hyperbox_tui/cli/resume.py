"""`hyperbox resume`. See ``acts``."""

from __future__ import annotations

from hyperbox_tui.cli.acts import resume as run

__all__ = ["run"]
