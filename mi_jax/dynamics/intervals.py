"""Intervals over seeds: the range for fewer than five values, a bootstrap from five values on."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

FEW = 5
"""Number of values below which the interval is their range."""


class Interval(NamedTuple):
    """The median over seeds with its uncertainty.

    Attributes:
        low: lower end; NaN if no seed has a value, like ``middle`` and ``high``.
        middle: the median.
        high: upper end.
        kind: how the ends were found; "none" if no seed has a value.
        found: number of seeds that have a value.
        total: number of all seeds.
    """

    low: float
    middle: float
    high: float
    kind: Literal["range", "bootstrap 95 %", "none"]
    found: int
    total: int


def interval(values: Float[np.ndarray, " seed"], *, draws: int = 2000, seed: int = 0) -> Interval:
    """The median over seeds with its range, or with its 95 % bootstrap interval.

    Fewer than five finite values have their range, from the smallest to the largest. From five on
    the ends are the 2.5 % and 97.5 % quantiles of the medians of ``draws`` resamples (percentile
    bootstrap).

    Args:
        values: one per seed, in any unit. Values that are not finite (NaN stands for never) are
            left out and counted.
        draws: number of bootstrap resamples.
        seed: of the generator that draws them.

    Returns:
        An ``Interval`` in the unit of the values.

    Example:
        >>> interval(np.array([3.0, 1.0, np.nan]))
        Interval(low=1.0, middle=2.0, high=3.0, kind='range', found=2, total=3)
    """
    finite = np.asarray(values, np.float64)[np.isfinite(values)]
    count, total = len(finite), len(values)
    if not count:
        return Interval(np.nan, np.nan, np.nan, "none", 0, total)
    middle = float(np.median(finite))
    if count < FEW:
        return Interval(float(finite.min()), middle, float(finite.max()), "range", count, total)
    resampled = np.random.default_rng(seed).choice(finite, (draws, count))
    low, high = np.quantile(np.median(resampled, axis=1), [0.025, 0.975])
    return Interval(float(low), middle, float(high), "bootstrap 95 %", count, total)
