"""Medians and 99th percentiles of lists of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

__all__ = ["Metric", "metric"]


class Metric(TypedDict):
    """One row of the results."""

    p50: float
    p99: float
    n: int
    unit: str


def metric(values: Sequence[float], unit: str) -> Metric:
    """Nearest-rank percentiles of at least one value."""
    ordered = sorted(values)

    def rank(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 4)

    return {"p50": rank(0.5), "p99": rank(0.99), "n": len(ordered), "unit": unit}
