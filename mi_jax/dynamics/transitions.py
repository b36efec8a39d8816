"""Level crossings of curves, and the dates of memorising and grokking that they give."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

ACCURACY = 0.99
"""Accuracy from which a seed counts as having memorised (training) or grokked (test)."""

TRAIN_LOSS, TEST_LOSS = 0.01, 0.01
"""The same for losses, in the loss's own unit (nats for cross-entropy)."""


class Dates(NamedTuple):
    """Dates per seed in steps, dims (seed,); NaN stands for never.

    Attributes:
        memorised: first crossing of the training curve.
        grokked: first crossing of the test curve.
        delay: grokked - memorised.
    """

    memorised: xr.DataArray
    grokked: xr.DataArray
    delay: xr.DataArray


def interpolated_crossing(
    steps: Int[np.ndarray, " step"] | Float[np.ndarray, " step"],
    values: Float[np.ndarray, " step"],
    level: float,
    direction: Literal["up", "down"] = "up",
) -> float:
    """The first step at which a curve reaches a level, interpolated linearly in log(step + 1).

    Args:
        steps: in rising order; may be unevenly spaced.
        values: the curve. Values that are not finite are no crossing, and are left out of the
            interpolation.
        level: in the unit of the values.
        direction: "up" looks for values >= level, "down" for values <= level.

    Returns:
        A step, in general between two of ``steps``. The first finite step if the curve is at the
        level there already; NaN if it never gets there.

    Example:
        Half-way from log(9 + 1) to log(99 + 1):

        >>> interpolated_crossing(np.array([0, 9, 99]), np.array([0.0, 0.0, 1.0]), 0.5)
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


def interpolated_crossings(
    curve: xr.DataArray, level: float, direction: Literal["up", "down"] = "up"
) -> xr.DataArray:
    """The first crossing of each seed's curve: see ``interpolated_crossing``.

    Args:
        curve: dims (seed, step), in any order.
        level: in the unit of the curve.
        direction: "up" looks for values >= level, "down" for values <= level.

    Returns:
        Dates in steps, dims (seed,); NaN for never.

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
    dates = [
        interpolated_crossing(steps, row.values, level, direction)
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
    """Dates memorising and grokking: the first crossings of the training and the test curve.

    Args:
        dataset: holds train_accuracy and test_accuracy, or train_loss and test_loss; dims (seed,
            step).
        by: "accuracy" dates accuracies that rise to a level, "loss" losses that fall to one.
        train: level of the training curve. By default .99 for accuracies, .01 for losses.
        test: level of the test curve, with the same defaults; 1 is also common for test loss.

    Returns:
        ``Dates`` in steps per seed.

    Raises:
        ValueError: if the dataset lacks one of the two curves.

    Example:
        >>> curves = {"train_accuracy": [[0.0, 0.99, 1.0]], "test_accuracy": [[0.0, 0.1, 0.99]]}
        >>> dataset = xr.Dataset(
        ...     {name: (("seed", "step"), np.array(rows)) for name, rows in curves.items()},
        ...     {"seed": [0], "step": [0, 100, 5000]},
        ... )
        >>> dates = transitions(dataset)
        >>> dates.memorised.values.round(6), dates.grokked.values.round(6)
        (array([100.]), array([5000.]))
    """
    names = (f"train_{by}", f"test_{by}")
    check_curves(dataset, names)
    default_train, default_test = (
        (ACCURACY, ACCURACY) if by == "accuracy" else (TRAIN_LOSS, TEST_LOSS)
    )
    levels = (default_train if train is None else train, default_test if test is None else test)
    direction: Literal["up", "down"] = "up" if by == "accuracy" else "down"
    memorised, grokked = (
        interpolated_crossings(dataset[name], level, direction)
        for name, level in zip(names, levels, strict=True)
    )
    return Dates(memorised, grokked, grokked - memorised)


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
