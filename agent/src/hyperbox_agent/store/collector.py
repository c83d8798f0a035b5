"""Python's cyclic collector, out of the way while very many values are made."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Make tens of thousands of entries inside: none of them dies, and none is part of a cycle.

    The collector would look through them again and again, for a third of the whole time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
