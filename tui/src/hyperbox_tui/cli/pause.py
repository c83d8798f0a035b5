"""`hyperbox pause`. See ``acts``."""

from __future__ import annotations

from hyperbox_tui.cli.acts import pause as run

__all__ = ["run"]
