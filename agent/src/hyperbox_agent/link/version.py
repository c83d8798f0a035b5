"""What this build speaks."""

from __future__ import annotations

PROTOCOL = 1
"""Grows with every change of frames, ops or their bodies that an older peer would misread."""

VERSION = "0.1.0"
"""The package's version. Written here as well as in pyproject.toml (a test holds them equal): in
an agent that runs from its archive there is no package metadata to ask."""
