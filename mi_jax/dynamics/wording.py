"""Dates in words, for readers of a report or a command.

A date is a pair [lower, upper] of steps, either of which may be infinite; see ``dynamics.levels``.
"""

import math

import numpy as np
import xarray as xr

from mi_jax.dynamics.intervals import DateInterval, date_interval

NO_DATE = "none"
"""Text of a date that a seed does not have, such as the end of a phase that it does not have."""

UNKNOWN = "unknown"
"""Text of a date that may lie anywhere."""


def date_text(lower: float | int, upper: float | int) -> str:
    """A date in words.

    Args:
        lower: in steps; -inf where it had happened by the first snapshot.
        upper: in steps; inf where it has not happened by the last snapshot.

    Returns:
        The words; "none" for NaN, and "unknown" where both bounds are open.

    Example:
        >>> date_text(2676, 2757), date_text(-math.inf, 10), date_text(6000, math.inf)
        ('between 2,676 and 2,757', 'by step 10', 'later than 6,000')
    """
    return _text(lower, upper, "by step", "later than")


def difference_text(lower: float | int, upper: float | int) -> str:
    """A number of steps between two dates in words.

    Args:
        lower: least number of steps; -inf where there is no least.
        upper: largest number of steps; inf where there is no largest.

    Example:
        >>> difference_text(-20, 30), difference_text(100, math.inf), difference_text(-math.inf, 5)
        ('between -20 and 30', 'more than 100', 'at most 5')
    """
    return _text(lower, upper, "at most", "more than")


def date_texts(dates: xr.DataArray) -> list[str]:
    """The dates of all seeds in words.

    Args:
        dates: dims (seed, bound), in steps.

    Example:
        >>> dates = xr.DataArray(
        ...     [[10, 20], [6000, np.inf], [np.nan, np.nan]],
        ...     {"seed": [0, 1, 2], "bound": ["lower", "upper"]},
        ...     ("seed", "bound"),
        ... )
        >>> date_texts(dates)
        ['between 10 and 20', 'later than 6,000', 'none']
    """
    bounds = dates.transpose("seed", "bound").values.astype(np.float64)
    return [date_text(lower, upper) for lower, upper in bounds.tolist()]


def median_text(dates: xr.DataArray, *, differences: bool = False) -> str:
    """The median date over seeds in words, with its interval and the coverage of that.

    Seeds that have not got there by their last snapshot are part of both.

    Args:
        dates: dims (seed, bound), in steps.
        differences: whether these are numbers of steps between two dates; see ``difference_text``.

    Returns:
        The words; without an interval for a single seed, and "none" if no seed has such a date.

    Example:
        >>> dates = xr.DataArray(
        ...     [[10, 20], [30, 40], [100, np.inf]],
        ...     {"seed": [0, 1, 2], "bound": ["lower", "upper"]},
        ...     ("seed", "bound"),
        ... )
        >>> median_text(dates)
        'between 30 and 40 [from 10 on; range, 75 %; dated in 2 of 3 seeds]'
    """
    over = date_interval(dates)
    text = difference_text if differences else date_text
    middle = text(*over.middle)
    counted = f"; dated in {over.found} of {over.total} seeds" if over.found < over.total else ""
    if over.kind == "none":
        return middle + (f" [{counted.removeprefix('; ')}]" if counted and over.total > 1 else "")
    return f"{middle} [{_ends(over)}; {over.label}{counted}]"


def _text(lower: float | int, upper: float | int, only_upper: str, only_lower: str) -> str:
    """The words for a pair of bounds, with those for a pair of which one is open."""
    if math.isnan(lower) or math.isnan(upper):
        return NO_DATE
    if math.isinf(lower) and math.isinf(upper):
        return UNKNOWN
    if math.isinf(lower):
        return f"{only_upper} {_steps(upper)}"
    if math.isinf(upper):
        return f"{only_lower} {_steps(lower)}"
    return f"between {_steps(lower)} and {_steps(upper)}"


def _ends(over: DateInterval) -> str:
    """The ends of an interval in words."""
    if math.isinf(over.low) and math.isinf(over.high):
        return "open on both sides"
    if math.isinf(over.low):
        return f"up to {_steps(over.high)}"
    if math.isinf(over.high):
        return f"from {_steps(over.low)} on"
    return f"from {_steps(over.low)} to {_steps(over.high)}"


def _steps(number: float | int) -> str:
    """A number of steps, which is whole or, as the mean of two, ends in a half."""
    return f"{number:,.1f}".removesuffix(".0")
