"""Figures from samples: plain functions on plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` (0–1) of the samples do not exceed.

    Nothing is interpolated: the answer is a value that was seen. Raises ValueError without samples.
    """
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(samples: Iterable[float], digits: int = 1) -> dict[str, float]:
    """Smallest, median, 95th percentile, largest and number; only ``n`` where there is none."""
    values = list(samples)
    if not values:
        return {"n": 0}
    return {"n": len(values), "min": round(min(values), digits),
            "p50": round(percentile(values, 0.50), digits),
            "p95": round(percentile(values, 0.95), digits), "max": round(max(values), digits)}
