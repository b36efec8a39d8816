"""The three phases of grokking, from the curves by a stated rule (arXiv 2301.05217, section 5)."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from mi_jax.dynamics.transitions import ACCURACY, first_crossing

AT_ONCE = "generalised at once"
"""The verdict on a seed whose test accuracy reaches .99 at no later snapshot than its training
accuracy: there are no phases.
"""

FALL_BEGINS, FALL_ENDS = 0.1, 0.9
"""Shares of the fall of log test loss, from its maximum to its minimum after it, at which clean-up
begins and ends.
"""

RULE = (
    "Memorisation ends where excluded loss is smallest, between the step at which training accuracy"
    " reaches .99 and the end of circuit formation. Circuit formation ends, and clean-up begins,"
    " where log test loss has made 10 % of its fall from its maximum before test accuracy reaches"
    " .99 to the smallest value after it; clean-up ends at 90 %. Both are dated only for a seed"
    " whose test accuracy reaches .99, at a later snapshot than its training accuracy (any other"
    " generalised at once), and whose test loss falls after that."
)


class Phases(NamedTuple):
    """The ends of the phases by seed, in steps; NaN where there is none."""

    memorisation_end: xr.DataArray
    circuit_formation_end: xr.DataArray
    cleanup_end: xr.DataArray
    verdict: xr.DataArray
    """"grokked", "generalised at once", "did not grok" or "did not memorise"."""


def phases(dataset: xr.Dataset) -> Phases:
    """Memorisation, circuit formation and clean-up of every seed: see ``RULE``.

    Args:
        dataset: with train_accuracy, test_accuracy, test_loss and excluded_loss; dims (seed, step).
            Without excluded_loss, memorisation ends where training accuracy reaches .99.

    Raises:
        ValueError: where the dataset lacks a curve.
    """
    missing = [
        name for name in ("train_accuracy", "test_accuracy", "test_loss") if name not in dataset
    ]
    if missing:
        raise ValueError(
            f"the dataset has no {missing}; it has {sorted(map(str, dataset.data_vars))}"
        )
    seeds = dataset["seed"].values
    rows = [_of_seed(dataset.sel(seed=seed)) for seed in seeds]
    columns = [
        xr.DataArray(
            [row[i] for row in rows],
            {"seed": seeds},
            ("seed",),
            attrs={"units": "steps"} if i < 3 else {},
        )
        for i in range(4)
    ]
    return Phases(*columns)


def _of_seed(one: xr.Dataset) -> tuple[float, float, float, str]:
    steps = one["step"].values
    memorised = first_crossing(steps, one["train_accuracy"].values, ACCURACY)
    if np.isnan(memorised):
        return np.nan, np.nan, np.nan, "did not memorise"
    grokked = first_crossing(steps, one["test_accuracy"].values, ACCURACY)
    first, second = (
        (one[f"{split}_accuracy"].values >= ACCURACY).argmax() for split in ("train", "test")
    )
    if np.isfinite(grokked) and second <= first:
        return np.nan, np.nan, np.nan, AT_ONCE
    formed, cleaned = (
        (np.nan, np.nan) if np.isnan(grokked) else _fall(steps, one["test_loss"].values, grokked)
    )
    if formed <= memorised:
        formed, cleaned = np.nan, np.nan
    last = float(steps[-1]) if np.isnan(formed) else formed
    ended = (
        _memorisation_end(steps, one["excluded_loss"].values, memorised, last)
        if "excluded_loss" in one
        else memorised
    )
    return ended, formed, cleaned, "did not grok" if np.isnan(grokked) else "grokked"


def _fall(
    steps: np.ndarray, loss: Float[np.ndarray, " step"], grokked: float
) -> tuple[float, float]:
    """Where log loss has made FALL_BEGINS and FALL_ENDS of its way from its maximum up to
    ``grokked`` to the smallest after it.

    A later maximum would be a spike of the optimizer's.
    """
    logs = np.log(np.where((loss > 0) & np.isfinite(loss), loss, np.nan))
    before = logs[steps <= grokked]
    if np.isnan(before).all():
        return np.nan, np.nan
    top = int(np.nanargmax(before))
    after, high, low = logs[top:], float(before[top]), float(np.nanmin(logs[top:]))
    begin, end = (
        first_crossing(steps[top:], after, high - share * (high - low), "down")
        for share in (FALL_BEGINS, FALL_ENDS)
    )
    return begin, end


def _memorisation_end(
    steps: np.ndarray, excluded: Float[np.ndarray, " step"], memorised: float, last: float
) -> float:
    between = (steps >= memorised) & (steps <= last) & np.isfinite(excluded)
    if not between.any():
        return memorised
    return float(steps[between][np.argmin(excluded[between])])
