"""Medians over seeds with their intervals: order statistics, whose coverage is known exactly.

The k-th smallest and the k-th largest of n independent values enclose the median of their
distribution with probability 1 - 2 P(Binomial(n, 1/2) <= k - 1), whatever that distribution is
(David and Nagaraja, Order Statistics, 3rd edition, section 7.1).
"""

from functools import lru_cache
from math import comb
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

COVERAGE = 0.95
"""Least coverage of an interval, where there are enough values for it."""

ENOUGH = 6
"""Least number of values whose range covers the median with at least ``COVERAGE``."""

Kind = Literal["order statistics", "range", "none"]
"""How the ends of an interval were found."""


class Interval(NamedTuple):
    """The median of numbers over seeds, with an interval that covers the true median.

    Attributes:
        low: lower end; NaN where there is no interval.
        middle: the median of the values; NaN without any.
        high: upper end; NaN where there is no interval.
        coverage: probability that an interval of this kind covers the true median; NaN where there
            is no interval.
        kind: "order statistics" from six values on, "range" for two to five, "none" for fewer.
        found: number of seeds that have a value.
        total: number of all seeds.
    """

    low: float
    middle: float
    high: float
    coverage: float
    kind: Kind
    found: int
    total: int

    @property
    def label(self) -> str:
        """The coverage in words, to stand beside the ends: "range, 87.5 %" or "96.9 %"."""
        return _label(self.kind, self.coverage)


class DateInterval(NamedTuple):
    """The median of dates over seeds, with an interval that covers the true median.

    Attributes:
        low: lower end in steps; NaN where there is no interval, -inf where it lies before the
            first snapshot.
        middle: lower and upper bound of the median date in steps, (-inf or a step, a step or inf);
            both NaN without any date.
        high: upper end in steps; NaN where there is no interval, inf where it lies beyond the last
            snapshot.
        coverage: least probability that an interval of this kind covers the true median; NaN where
            there is no interval.
        kind: "order statistics" from six dates on, "range" for two to five, "none" for fewer.
        found: number of seeds whose date lies within the steps that were trained.
        total: number of all seeds.
    """

    low: float
    middle: tuple[float, float]
    high: float
    coverage: float
    kind: Kind
    found: int
    total: int

    @property
    def label(self) -> str:
        """The coverage in words, to stand beside the ends: "range, 87.5 %" or "96.9 %"."""
        return _label(self.kind, self.coverage)


def interval(values: Float[np.ndarray, " seed"]) -> Interval:
    """The median over seeds with its interval.

    From six values on the interval is the narrowest [k-th smallest, k-th largest] that covers the
    true median with a probability of at least 95 %. Two to five values have their range, which
    covers it with a probability of 50, 75, 87.5 or 93.75 %. One value has no interval.

    Dates that may lie beyond the steps that were trained belong into ``date_interval``: left out,
    seeds that never get there would make the others look like all.

    Args:
        values: one per seed, in any unit. Values that are not finite are left out and counted.

    Returns:
        An ``Interval`` in the unit of the values.

    Example:
        >>> interval(np.array([3.0, 1.0, np.nan]))
        Interval(low=1.0, middle=2.0, high=3.0, coverage=0.5, kind='range', found=2, total=3)
    """
    values = np.asarray(values, np.float64)
    ordered = np.sort(values[np.isfinite(values)])
    low, high, coverage, kind = _ends(ordered, ordered)
    return Interval(low, _median(ordered), high, coverage, kind, len(ordered), len(values))


def date_interval(dates: xr.DataArray) -> DateInterval:
    """The median date over seeds with its interval, where each date is known between two bounds.

    With n dates [lower, upper], the median date lies between the median of the lower bounds and
    the median of the upper ones. The interval goes from the k-th smallest lower bound to the k-th
    largest upper bound, with the k of ``interval``. Whatever the dates are within their bounds, it
    holds the order statistics of the dates, so that it covers the true median at least as often.

    Seeds that had not got there by the last snapshot stay in, with +inf as their upper bound.

    Args:
        dates: dims (seed, bound) with the bounds "lower" and "upper", in steps: of ``crossings``,
            of a variable of ``grokking_dates``, or of ``date_differences``. Seeds that lack the
            event altogether have NaN bounds; they are left out and counted.

    Returns:
        A ``DateInterval`` in steps.

    Example:
        Two of three seeds got there. The median seed did so between steps 30 and 40:

        >>> dates = xr.DataArray(
        ...     [[10, 20], [30, 40], [100, np.inf]],
        ...     {"seed": [0, 1, 2], "bound": ["lower", "upper"]},
        ...     ("seed", "bound"),
        ... )
        >>> over = date_interval(dates)
        >>> over.low, over.middle, over.high, over.found, over.label
        (10.0, (30.0, 40.0), inf, 2, 'range, 75 %')
    """
    bounds = dates.transpose("seed", "bound").values.astype(np.float64)
    dated = bounds[~np.isnan(bounds).any(axis=1)]
    # Sorted each for itself: the k-th smallest true date lies between the k-th smallest bounds.
    lower, upper = np.sort(dated[:, 0]), np.sort(dated[:, 1])
    low, high, coverage, kind = _ends(lower, upper)
    found = int(np.isfinite(upper).sum())
    middle = (_median(lower), _median(upper))
    return DateInterval(low, middle, high, coverage, kind, found, len(bounds))


def date_differences(earlier: xr.DataArray, later: xr.DataArray) -> xr.DataArray:
    """Steps from one date to another, seed by seed, between bounds.

    A difference lies between later.lower - earlier.upper and later.upper - earlier.lower. The
    median of these paired differences (``date_interval``) is in general not the difference of the
    medians.

    Args:
        earlier: dates, dims (seed, bound), in steps.
        later: dates of the same seeds, dims (seed, bound), in steps.

    Returns:
        Differences in steps, dims (seed, bound), in the order of ``later``'s seeds; NaN where a
        seed lacks one of the dates.

    Raises:
        ValueError: if the two have different seeds.

    Example:
        >>> coords = {"seed": [0], "bound": ["lower", "upper"]}
        >>> memorised = xr.DataArray([[10, 20]], coords, ("seed", "bound"))
        >>> generalised = xr.DataArray([[100, 150]], coords, ("seed", "bound"))
        >>> date_differences(memorised, generalised).values.tolist()
        [[80.0, 140.0]]
    """
    first, second = earlier["seed"].values.tolist(), later["seed"].values.tolist()
    if sorted(first) != sorted(second):
        raise ValueError(
            f"The dates are of seeds {first} and {second}. Select the seeds that both have."
        )
    before = earlier.sel(seed=second).transpose("seed", "bound").values.astype(np.float64)
    after = later.transpose("seed", "bound").values.astype(np.float64)
    # A lower bound is never +inf and an upper one never -inf, so no difference is inf - inf.
    apart = np.stack([after[:, 0] - before[:, 1], after[:, 1] - before[:, 0]], axis=1)
    return xr.DataArray(
        apart,
        {"seed": second, "bound": ["lower", "upper"]},
        ("seed", "bound"),
        attrs={"units": "steps"},
    )


def _ends(
    lower: Float[np.ndarray, " value"], upper: Float[np.ndarray, " value"]
) -> tuple[float, float, float, Kind]:
    """The ends of the interval, its coverage and its kind.

    Args:
        lower: sorted lower bounds.
        upper: sorted upper bounds; the same as ``lower`` for numbers.
    """
    count = len(lower)
    if count < 2:
        return float("nan"), float("nan"), float("nan"), "none"
    k, coverage = _order(count)
    kind = "order statistics" if count >= ENOUGH else "range"
    return float(lower[k - 1]), float(upper[count - k]), coverage, kind


@lru_cache(maxsize=1024)
def _order(count: int) -> tuple[int, float]:
    """The largest k whose interval [k-th smallest, k-th largest] covers enough, and its coverage.

    It is 1 where even the range covers too little.
    """
    # Tails are counted in whole numbers: sums of floats could fall short of a coverage by rounding.
    k, missed = 1, 2
    while k < (count + 1) // 2:
        more = missed + 2 * comb(count, k)
        if 1 - more / 2**count < COVERAGE:
            break
        k, missed = k + 1, more
    return k, 1 - missed / 2**count


def _median(ordered: Float[np.ndarray, " value"]) -> float:
    """The median of sorted values; NaN without any."""
    if not len(ordered):
        return float("nan")
    # The mean of infinite bounds of one sign is that infinity.
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def _label(kind: Kind, coverage: float) -> str:
    """The coverage of an interval in words, and whether it is a range."""
    if kind == "none":
        return "no interval"
    percent = f"{100 * coverage:.1f}".removesuffix(".0")
    return f"range, {percent} %" if kind == "range" else f"{percent} %"
