"""Intervals over seeds: the range for fewer than five, a bootstrap from five on, and which it is."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

FEW = 5
"""Fewer seeds than this give a range."""


class Interval(NamedTuple):
    """A middle with its uncertainty over seeds. NaN throughout where no seed has a value."""

    low: float
    middle: float
    """The median."""
    high: float
    kind: Literal["range", "bootstrap 95 %", "none"]
    found: int
    """Seeds that have a value, of ``total``."""
    total: int


def interval(values: Float[np.ndarray, " seed"], *, draws: int = 2000, seed: int = 0) -> Interval:
    """The median over seeds with its range (fewer than 5 values) or the 95 % percentile bootstrap
    interval of the median.

    Args:
        values: one a seed; NaN (never) is left out and counted.
        draws: bootstrap resamples.

    Example:
        >>> interval(np.array([3.0, 1.0, np.nan]))
        Interval(low=1.0, middle=2.0, high=3.0, kind='range', found=2, total=3)
    """
    finite = np.asarray(values, np.float64)[np.isfinite(values)]
    if not len(finite):
        return Interval(np.nan, np.nan, np.nan, "none", 0, len(values))
    middle = float(np.median(finite))
    if len(finite) < FEW:
        return Interval(
            float(finite.min()), middle, float(finite.max()), "range", len(finite), len(values)
        )
    resampled = np.random.default_rng(seed).choice(finite, (draws, len(finite)))
    low, high = np.quantile(np.median(resampled, axis=1), [0.025, 0.975])
    return Interval(float(low), middle, float(high), "bootstrap 95 %", len(finite), len(values))
