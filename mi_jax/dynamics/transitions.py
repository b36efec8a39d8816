"""When a curve first crosses a level, and what that says of memorising and grokking."""

from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

ACCURACY = 0.99
TRAIN_LOSS, TEST_LOSS = 0.01, 0.01


class Dates(NamedTuple):
    """Dates by seed, in steps; NaN is never."""

    memorised: xr.DataArray
    """The first crossing of the training curve."""
    grokked: xr.DataArray
    """The first crossing of the test curve."""
    delay: xr.DataArray
    """grokked - memorised."""


def first_crossing(
    steps: Int[np.ndarray, " step"] | Float[np.ndarray, " step"],
    values: Float[np.ndarray, " step"],
    level: float,
    direction: Literal["up", "down"] = "up",
) -> float:
    """The first step at which a curve reaches a level, interpolated linearly in log(step + 1); NaN
    for never.

    Non-finite values are no crossing and are left out of the interpolation. Steps may be unevenly
    spaced.

    Args:
        direction: "up" is values >= level, "down" values <= level.

    Example:
        >>> first_crossing(np.array([0, 9, 99]), np.array([0.0, 0.0, 1.0]), 0.5)  # half-way from log 10 to log 100
        30.62...
    """
    finite = np.isfinite(values)
    x, y = np.log1p(np.asarray(steps, np.float64)[finite]), np.asarray(values, np.float64)[finite]
    reached = y >= level if direction == "up" else y <= level
    if not reached.any():
        return float("nan")
    i = int(reached.argmax())
    if i == 0:
        return float(np.expm1(x[0]))
    share = (level - y[i - 1]) / (y[i] - y[i - 1])
    return float(np.expm1(x[i - 1] + share * (x[i] - x[i - 1])))


def crossings(
    curve: xr.DataArray, level: float, direction: Literal["up", "down"] = "up"
) -> xr.DataArray:
    """``first_crossing`` of every seed of a curve with dims (seed, step)."""
    steps = curve["step"].values
    dates = [
        first_crossing(steps, row.values, level, direction)
        for row in curve.transpose("seed", "step")
    ]
    return xr.DataArray(dates, {"seed": curve["seed"].values}, ("seed",), attrs={"units": "steps"})


def transitions(
    dataset: xr.Dataset,
    *,
    by: Literal["accuracy", "loss"] = "accuracy",
    train: float | None = None,
    test: float | None = None,
) -> Dates:
    """When each seed memorised and when it grokked: the first crossings of the training and of the
    test curve, or never.

    Args:
        dataset: with train_accuracy and test_accuracy, or train_loss and test_loss; dims (seed,
            step).
        by: accuracies rising above, or losses falling below, a level.
        train, test: the levels; .99 for accuracies, 0.01 for losses by default (1 is the other
            usual one for test loss).

    Raises:
        ValueError: where the dataset lacks the curves.
    """
    names = (f"train_{by}", f"test_{by}")
    missing = [name for name in names if name not in dataset]
    if missing:
        raise ValueError(
            f"the dataset has no {missing}; it has {sorted(map(str, dataset.data_vars))}"
        )
    defaults = (ACCURACY, ACCURACY) if by == "accuracy" else (TRAIN_LOSS, TEST_LOSS)
    levels = [
        default if given is None else given
        for given, default in zip((train, test), defaults, strict=True)
    ]
    direction: Literal["up", "down"] = "up" if by == "accuracy" else "down"
    memorised, grokked = (
        crossings(dataset[n], level, direction) for n, level in zip(names, levels, strict=True)
    )
    return Dates(memorised, grokked, grokked - memorised)
