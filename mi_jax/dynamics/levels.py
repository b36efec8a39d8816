"""Levels of curves: between which two snapshots a curve first reaches one.

A date is a pair [lower, upper] in steps. What is dated had not happened at ``lower`` and had
happened by ``upper``, the next snapshot. The lower bound is -inf where it had happened by the first
snapshot, the upper bound is +inf where it had not by the last.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

BOUNDS = ("lower", "upper")
"""Coordinates of the dim ``bound`` of dates."""


def first_crossing(
    steps: Int[np.ndarray, " step"] | Float[np.ndarray, " step"],
    values: Float[np.ndarray, " step"],
    level: float,
    direction: Literal["up", "down"] = "up",
) -> tuple[float, float]:
    """The two snapshots between which a curve first reaches a level.

    Args:
        steps: in rising order; may be unevenly spaced.
        values: the curve. Values that are not finite say nothing and are left out.
        level: in the unit of the values. A value that differs from it by no more than the rounding
            of the values' precision is at the level: 9 of 10 in float32 is .9.
        direction: "up" looks for values >= level, "down" for values <= level.

    Returns:
        (lower, upper) in steps: the last snapshot before the level was reached, and the first at
        which it was. ``lower`` is -inf where the first finite value is at the level, ``upper`` is
        inf where none is; both are infinite without any finite value.

    Example:
        >>> first_crossing(np.array([0, 9, 99]), np.array([0.0, 0.4, 1.0]), 0.5)
        (9.0, 99.0)
        >>> first_crossing(np.array([0, 9, 99]), np.array([0.0, 0.4, 0.45]), 0.5)
        (99.0, inf)
    """
    x, _, reached = _finite(steps, values, level, direction)
    i = int(reached.argmax()) if reached.any() else len(x)
    lower = float(x[i - 1]) if i > 0 else float("-inf")
    upper = float(x[i]) if i < len(x) else float("inf")
    return lower, upper


def crossings(
    curve: xr.DataArray, level: float, direction: Literal["up", "down"] = "up"
) -> xr.DataArray:
    """The snapshots between which each seed's curve first reaches a level: ``first_crossing``.

    Args:
        curve: dims (seed, step), in any order.
        level: in the unit of the curve.
        direction: "up" looks for values >= level, "down" for values <= level.

    Returns:
        Dates in steps, dims (seed, bound) with the bounds "lower" and "upper". The upper bound is
        inf for seeds that have not reached the level by their last snapshot.

    Example:
        >>> curve = xr.DataArray(
        ...     [[0.0, 0.4, 1.0], [0.0, 0.1, 0.2]],
        ...     {"seed": [0, 1], "step": [0, 9, 99]},
        ...     ("seed", "step"),
        ... )
        >>> crossings(curve, 0.4).values.tolist()
        [[0.0, 9.0], [99.0, inf]]
    """
    steps = curve["step"].values
    rows = curve.transpose("seed", "step").values
    pairs = [first_crossing(steps, row, level, direction) for row in rows]
    return as_dates(curve["seed"].values, pairs)


def _finite(
    steps: Int[np.ndarray, " step"] | Float[np.ndarray, " step"],
    values: Float[np.ndarray, " step"],
    level: float,
    direction: Literal["up", "down"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps and values of the finite part of a curve, and whether each value is at the level or
    beyond, but for the rounding of the values' precision.
    """
    finite = np.isfinite(values)
    precision = values.dtype if np.issubdtype(values.dtype, np.floating) else np.float64
    rounding = 2 * float(np.finfo(precision).eps) * abs(level)
    x, y = np.asarray(steps, np.float64)[finite], np.asarray(values, np.float64)[finite]
    return x, y, y >= level - rounding if direction == "up" else y <= level + rounding


def interpolated_crossing(
    steps: Int[np.ndarray, " step"] | Float[np.ndarray, " step"],
    values: Float[np.ndarray, " step"],
    level: float,
    direction: Literal["up", "down"] = "up",
) -> float:
    """The first step at which a curve reaches a level, interpolated linearly in log(step + 1).

    This is a reading of a level, not a date: nothing is known between two snapshots, and where a
    steep curve crosses between them is a guess. ``first_crossing`` gives what is known.

    Args:
        steps: in rising order; may be unevenly spaced.
        values: the curve. Values that are not finite are no crossing, and are left out of the
            interpolation.
        level: in the unit of the values.
        direction: "up" looks for values >= level, "down" for values <= level.

    Returns:
        A step, in general between two of ``steps``. The first finite step if the curve is at the
        level there already; NaN if it does not get there.

    Example:
        Half-way from log(9 + 1) to log(99 + 1):

        >>> interpolated_crossing(np.array([0, 9, 99]), np.array([0.0, 0.0, 1.0]), 0.5)
        30.62...
    """
    finite, y, reached = _finite(steps, values, level, direction)
    x = np.log1p(finite)
    if not reached.any():
        return float("nan")
    i = int(reached.argmax())
    if i == 0:
        return float(np.expm1(x[0]))
    share = (level - y[i - 1]) / (y[i] - y[i - 1])
    return float(np.expm1(x[i - 1] + share * (x[i] - x[i - 1])))


def interpolated_crossings(
    curve: xr.DataArray, level: float, direction: Literal["up", "down"] = "up"
) -> xr.DataArray:
    """The step at which each seed's curve first reaches a level: ``interpolated_crossing``.

    Args:
        curve: dims (seed, step), in any order.
        level: in the unit of the curve.
        direction: "up" looks for values >= level, "down" for values <= level.

    Returns:
        Steps, dims (seed,); NaN where a seed does not reach the level.

    Example:
        >>> curve = xr.DataArray(
        ...     [[0.0, 0.4, 1.0], [0.0, 0.1, 0.2]],
        ...     {"seed": [0, 1], "step": [0, 9, 99]},
        ...     ("seed", "step"),
        ... )
        >>> interpolated_crossings(curve, 0.4).values.round(6).tolist()
        [9.0, nan]
    """
    steps = curve["step"].values
    found = [
        interpolated_crossing(steps, row.values, level, direction)
        for row in curve.transpose("seed", "step")
    ]
    return xr.DataArray(found, {"seed": curve["seed"].values}, ("seed",), attrs={"units": "steps"})


def as_dates(seeds: np.ndarray, pairs: list[tuple[float, float]]) -> xr.DataArray:
    """Makes dates of pairs of bounds.

    Args:
        seeds: labels of the seeds, shape (seed,).
        pairs: the lower and the upper bound of each seed, in steps.

    Returns:
        Dates in steps, dims (seed, bound).
    """
    return xr.DataArray(
        np.array(pairs, np.float64).reshape(-1, 2),
        {"seed": seeds, "bound": list(BOUNDS)},
        ("seed", "bound"),
        attrs={"units": "steps"},
    )


def check_curves(dataset: xr.Dataset, names: Sequence[str]) -> None:
    """Checks that a dataset holds the curves a rule needs.

    Args:
        dataset: the curves at hand.
        names: the variables that have to be there.

    Raises:
        ValueError: if one is missing; names it and what there is.
    """
    missing = [name for name in names if name not in dataset]
    if missing:
        raise ValueError(
            f"The dataset has no {', '.join(missing)}. It has"
            f" {', '.join(sorted(map(str, dataset.data_vars)))}."
            " Measure the missing curves and add them."
        )
