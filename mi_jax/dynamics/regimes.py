"""Which of the four ways of learning a seed shows: comprehension, grokking, memorisation or
confusion (arXiv 2205.10343).
"""

import numpy as np
import xarray as xr

from mi_jax.dynamics.transitions import transitions

REGIMES = ("comprehension", "grokking", "memorisation", "confusion")
GAP, LEVEL = 1000, 0.9


def regimes(dataset: xr.Dataset, *, gap: int = GAP, level: float = LEVEL) -> xr.DataArray:
    """The regime of each seed, dims (seed,), within the steps that were trained: the budget.

    Training and test accuracy are dated where they first reach ``level``. Comprehension: both do,
    less than ``gap`` steps apart;
    grokking: both do, test at least ``gap`` steps after training; memorisation: training alone;
        confusion: training never does.

    Args:
        dataset: with train_accuracy and test_accuracy, dims (seed, step).
        gap: in steps; 1,000 in the paper, whose budget is 1e5.
        level: 90 % in the paper.

    Raises:
        ValueError: where the dataset lacks the curves.
    """
    dates = transitions(dataset, train=level, test=level)
    memorised, grokked, delay = (np.asarray(one.values) for one in dates)
    kinds = np.select(
        [np.isnan(memorised), np.isnan(grokked), delay >= gap],
        [REGIMES[3], REGIMES[2], REGIMES[1]],
        default=REGIMES[0],
    )
    return xr.DataArray(
        kinds, {"seed": dataset["seed"].values}, ("seed",), attrs={"gap": gap, "level": level}
    )
