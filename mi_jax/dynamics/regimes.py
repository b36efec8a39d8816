"""The four regimes of learning: comprehension, grokking, memorisation and confusion.

Source: Liu et al. 2022, arXiv 2205.10343.
"""

import numpy as np
import xarray as xr

from mi_jax.dynamics.transitions import transitions

REGIMES = ("comprehension", "grokking", "memorisation", "confusion")
"""Names of the regimes."""

GAP = 1000
"""Steps between training and test accuracy from which a seed counts as grokking (the paper's)."""

LEVEL = 0.9
"""Accuracy that has to be reached (the paper's)."""


def regimes(dataset: xr.Dataset, *, gap: int = GAP, level: float = LEVEL) -> xr.DataArray:
    """The regime of each seed within the steps that were trained.

    Training accuracy and test accuracy are dated at the step at which each first reaches
    ``level``:

    - comprehension: both reach it, test accuracy less than ``gap`` steps after training accuracy;
    - grokking: both reach it, test accuracy at least ``gap`` steps after training accuracy;
    - memorisation: only training accuracy reaches it;
    - confusion: training accuracy never reaches it.

    Args:
        dataset: holds train_accuracy and test_accuracy, dims (seed, step), between 0 and 1.
        gap: in steps. The paper's gap of 1,000 goes with a budget of 1e5 steps.
        level: accuracy between 0 and 1.

    Returns:
        One of ``REGIMES`` per seed, dims (seed,); the attrs hold ``gap`` and ``level``.

    Raises:
        ValueError: if the dataset lacks one of the two curves.

    Example:
        >>> curves = {"train_accuracy": [[0.0, 1.0, 1.0]], "test_accuracy": [[0.0, 0.0, 1.0]]}
        >>> dataset = xr.Dataset(
        ...     {name: (("seed", "step"), np.array(rows)) for name, rows in curves.items()},
        ...     {"seed": [0], "step": [0, 100, 5000]},
        ... )
        >>> regimes(dataset).values.tolist()
        ['grokking']
    """
    dates = transitions(dataset, train=level, test=level)
    memorised, grokked, delay = (np.asarray(date.values) for date in dates)
    names = np.select(
        [np.isnan(memorised), np.isnan(grokked), delay >= gap],
        [REGIMES[3], REGIMES[2], REGIMES[1]],
        default=REGIMES[0],
    )
    return xr.DataArray(
        names, {"seed": dataset["seed"].values}, ("seed",), attrs={"gap": gap, "level": level}
    )
