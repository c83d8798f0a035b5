"""What is up goes on as it was configured: a change of ``hyperbox.toml`` is named, not followed."""

from __future__ import annotations

import os
from collections.abc import Callable

from hyperbox_agent.core.generation import Outcome, Verdict
from hyperbox_agent.supervise.pipeline import Flight
from hyperbox_devcontainer.config import load
from hyperbox_devcontainer.config.reading import FILE_NAME
from hyperbox_devcontainer.errors import WorkstationError

Say = Callable[[str, "str | None", "str | None"], None]


def name_changed_settings(root: str, flight: Flight, outcome: Outcome, say: Say) -> None:
    """Tell what the file is worth, where it is part of a save that went live."""
    if outcome.verdict is not Verdict.COMMITTED or flight.first or not any(
            change.path == FILE_NAME for change in flight.batch.changes):
        return
    try:
        load(root, os.environ, detect=lambda *_: None)
    except WorkstationError as error:
        say(f"the next `hyperbox up` can't use it: {error.message}", FILE_NAME, error.hint)
        return
    say("it has changed; what is up goes on as it was configured", FILE_NAME,
        "hyperbox down, then hyperbox up")
