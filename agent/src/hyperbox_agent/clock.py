"""The real clock. ``core/clock.py`` has the seam."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Monotonic time of this machine, sleeping on the running event loop."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        await asyncio.sleep(seconds)
