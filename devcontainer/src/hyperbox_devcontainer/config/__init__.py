"""A project's configuration: what may be said, where, and what it comes to. See README.md."""

from __future__ import annotations

from hyperbox_devcontainer.config.load import load
from hyperbox_devcontainer.config.model import Config

__all__ = ["Config", "load"]
