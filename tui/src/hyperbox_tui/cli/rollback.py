"""`hyperbox rollback`. See ``acts``."""

from __future__ import annotations

from hyperbox_tui.cli.acts import rollback as run

__all__ = ["run"]
