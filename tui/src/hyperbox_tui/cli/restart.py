"""`hyperbox restart`. See ``acts``."""

from __future__ import annotations

from hyperbox_tui.cli.acts import restart as run

__all__ = ["run"]
