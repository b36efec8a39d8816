"""The three phases of grokking, dated from curves by a stated rule.

Source: arXiv 2301.05217, section 5.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from mi_jax.dynamics.transitions import ACCURACY, check_curves, interpolated_crossing

AT_ONCE = "generalised at once"
"""The verdict on a seed whose test accuracy reaches .99 no later than its training accuracy.

Such a seed has no phases.
"""

FALL_BEGINS, FALL_ENDS = 0.1, 0.9
"""Shares of the fall of log test loss at which clean-up begins and ends."""

RULE = (
    "Memorisation ends where excluded loss is smallest, between the step at which training accuracy"
    " reaches .99 and the end of circuit formation. The end of circuit formation is the beginning"
    " of clean-up: log test loss has made 10 % of its fall, from its maximum before test accuracy"
    " reaches .99 to its smallest value after that maximum. Clean-up ends at 90 % of this fall."
    " All three ends are dated only for seeds whose test accuracy reaches .99 at a later snapshot"
    " than their training accuracy (other seeds generalised at once), and whose test loss falls"
    " after memorisation."
)
"""The rule by which ``phases`` dates, for readers of a report."""


class Phases(NamedTuple):
    """Ends of the phases in steps per seed, dims (seed,); NaN where a phase has no end.

    Attributes:
        memorisation_end: end of memorisation.
        circuit_formation_end: end of circuit formation, where clean-up begins.
        cleanup_end: end of clean-up.
        verdict: "grokked", "generalised at once", "did not grok" or "did not memorise".
    """

    memorisation_end: xr.DataArray
    circuit_formation_end: xr.DataArray
    cleanup_end: xr.DataArray
    verdict: xr.DataArray


def phases(dataset: xr.Dataset) -> Phases:
    """Dates memorisation, circuit formation and clean-up of every seed.

    The rule: memorisation ends where excluded loss is smallest, between the step at which training
    accuracy reaches .99 and the end of circuit formation. Circuit formation ends, and clean-up
    begins, where log test loss has made 10 % of its fall, from its maximum before test accuracy
    reaches .99 to its smallest value after that maximum. Clean-up ends at 90 % of this fall.

    All three ends are dated only for seeds whose test accuracy reaches .99 at a later snapshot than
    their training accuracy, and whose test loss falls after memorisation.

    Args:
        dataset: holds train_accuracy, test_accuracy and test_loss, and excluded_loss if there is
            one; dims (seed, step). Without excluded_loss, memorisation ends where training
            accuracy reaches .99.

    Returns:
        ``Phases`` in steps per seed, with a verdict.

    Raises:
        ValueError: if the dataset lacks a curve.

    Example:
        >>> curves = {
        ...     "train_accuracy": [0.0, 1.0, 1.0, 1.0, 1.0],
        ...     "test_accuracy": [0.0, 0.0, 0.1, 0.9, 1.0],
        ...     "test_loss": [2.0, 5.0, 4.0, 0.1, 0.001],
        ... }
        >>> dataset = xr.Dataset(
        ...     {name: (("seed", "step"), np.array([row])) for name, row in curves.items()},
        ...     {"seed": [0], "step": [0, 100, 1000, 5000, 10_000]},
        ... )
        >>> phases(dataset).verdict.values.tolist()
        ['grokked']
    """
    check_curves(dataset, ("train_accuracy", "test_accuracy", "test_loss"))
    seeds = dataset["seed"].values
    rows = [_seed_phases(dataset.sel(seed=seed)) for seed in seeds]

    def by_seed(column: int, attrs: dict[str, str]) -> xr.DataArray:
        return xr.DataArray([row[column] for row in rows], {"seed": seeds}, ("seed",), attrs=attrs)

    steps = {"units": "steps"}
    return Phases(by_seed(0, steps), by_seed(1, steps), by_seed(2, steps), by_seed(3, {}))


def _seed_phases(curves: xr.Dataset) -> tuple[float, float, float, str]:
    """The phases of one seed.

    Returns:
        The steps at which memorisation, circuit formation and clean-up end (NaN for a phase without
        an end), and the verdict.
    """
    steps = curves["step"].values
    memorised = interpolated_crossing(steps, curves["train_accuracy"].values, ACCURACY)
    if np.isnan(memorised):
        return np.nan, np.nan, np.nan, "did not memorise"
    grokked = interpolated_crossing(steps, curves["test_accuracy"].values, ACCURACY)
    # Snapshots, not dates: two interpolated dates between the same snapshots say nothing.
    train_snapshot, test_snapshot = (
        (curves[f"{split}_accuracy"].values >= ACCURACY).argmax() for split in ("train", "test")
    )
    if np.isfinite(grokked) and test_snapshot <= train_snapshot:
        return np.nan, np.nan, np.nan, AT_ONCE
    formed, cleaned = np.nan, np.nan
    if not np.isnan(grokked):
        formed, cleaned = _fall(steps, curves["test_loss"].values, grokked)
    # A fall that begins before memorisation tells nothing of the circuit.
    if formed <= memorised:
        formed, cleaned = np.nan, np.nan
    # Without a circuit memorisation has no end: the smallest excluded loss so far may lie at the
    # last snapshot, wherever training was stopped.
    ended = np.nan if np.isnan(formed) else memorised
    if "excluded_loss" in curves and np.isfinite(formed):
        ended = _memorisation_end(steps, curves["excluded_loss"].values, memorised, formed)
    return ended, formed, cleaned, "did not grok" if np.isnan(grokked) else "grokked"


def _fall(
    steps: np.ndarray, loss: Float[np.ndarray, " step"], grokked: float
) -> tuple[float, float]:
    """Dates the fall of log loss.

    The fall goes from the maximum up to the step ``grokked`` to the smallest value after that
    maximum. A larger value after ``grokked`` would be a spike of the optimizer.

    Returns:
        The steps at which log loss has made the shares FALL_BEGINS and FALL_ENDS of its fall; NaN
        if no loss up to ``grokked`` is finite.
    """
    logs = np.log(np.where((loss > 0) & np.isfinite(loss), loss, np.nan))
    before = logs[steps <= grokked]
    if np.isnan(before).all():
        return np.nan, np.nan
    top = int(np.nanargmax(before))
    after, high, low = logs[top:], float(before[top]), float(np.nanmin(logs[top:]))
    begin, end = (
        interpolated_crossing(steps[top:], after, high - share * (high - low), "down")
        for share in (FALL_BEGINS, FALL_ENDS)
    )
    return begin, end


def _memorisation_end(
    steps: np.ndarray, excluded: Float[np.ndarray, " step"], memorised: float, last: float
) -> float:
    """The step between two steps at which excluded loss is smallest.

    It is ``memorised``, the first of the two, if no loss between them is finite.
    """
    between = (steps >= memorised) & (steps <= last) & np.isfinite(excluded)
    if not between.any():
        return memorised
    return float(steps[between][np.argmin(excluded[between])])
