"""Phases of grokking by rules that need the end of training: named alternatives."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from mi_jax.dynamics.dating import GROKKING, GrokkingRule
from mi_jax.dynamics.levels import as_dates, check_curves, crossings, first_crossing

SETTLED = 0.01
"""Largest share of a curve's fall that its last doubling of steps may add, for it to be settled."""


def retrospective_phases(dataset: xr.Dataset, rule: GrokkingRule = GROKKING) -> xr.Dataset:
    """Ends of the phases by rules that need the end of training: named alternatives.

    - ``circuit_formation_end`` and ``cleanup_end``: log test loss has made 10 % and 90 % of its
      fall, from its largest before generalising to its smallest after that.
    - ``memorisation_end``: excluded loss, measured against the key frequencies of the final model,
      is smallest, between memorising and the end of circuit formation (arXiv 2301.05217).

    While test loss still falls these dates move with the number of steps trained. So they are
    given only for seeds that generalised and whose log test loss added less than 1 % of its fall
    over the last doubling of steps; all others are "undecided", whatever their dates would be.

    Args:
        dataset: holds train_accuracy, test_accuracy and test_loss, and excluded_loss where there is
            one; dims (seed, step).
        rule: whose level dates memorising and generalising.

    Returns:
        The dates in steps, dims (seed, bound); memorisation_end only with excluded_loss. An
        undecided date has the bounds (lower bound of memorising, inf). decided: whether it is, dims
        (seed). The attr ``reference_step`` is the last snapshot, on which the dates rest.

    Raises:
        ValueError: if the dataset lacks one of the three curves.

    Example:
        >>> curves = {
        ...     "train_accuracy": [0.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        ...     "test_accuracy": [0.0, 0.0, 0.1, 1.0, 1.0, 1.0],
        ...     "test_loss": [2.0, 5.0, 4.9, 0.001, 0.001, 0.001],
        ... }
        >>> dataset = xr.Dataset(
        ...     {name: (("seed", "step"), np.array([row])) for name, row in curves.items()},
        ...     {"seed": [0], "step": [0, 100, 1000, 5000, 10_000, 20_000]},
        ... )
        >>> ends = retrospective_phases(dataset)
        >>> ends["cleanup_end"].values.tolist(), ends["decided"].values.tolist()
        ([[1000.0, 5000.0]], [True])
    """
    check_curves(dataset, ("train_accuracy", "test_accuracy", "test_loss"))
    seeds, steps = dataset["seed"].values, dataset["step"].values
    memorised = crossings(dataset["train_accuracy"], rule.level).values
    generalised = crossings(dataset["test_accuracy"], rule.level).values
    formed: list[tuple[float, float]] = []
    cleaned: list[tuple[float, float]] = []
    ended: list[tuple[float, float]] = []
    decided: list[bool] = []
    for row, seed in enumerate(seeds):
        curves = dataset.sel(seed=seed)
        upper = float(memorised[row, 1])
        fall = _settled_fall(steps, curves["test_loss"].values, generalised[row, 1])
        # A fall that begins before memorisation tells nothing of the circuit.
        is_decided = fall is not None and fall[0][1] > upper
        undecided = (float(memorised[row, 0]), float("inf"))
        first, last = fall if fall is not None and is_decided else (undecided, undecided)
        formed.append(first)
        cleaned.append(last)
        decided.append(is_decided)
        if "excluded_loss" in dataset:
            excluded = curves["excluded_loss"].values
            smallest = _smallest(steps, excluded, upper, first[1]) if is_decided else undecided
            ended.append(smallest)
    dates = {
        "circuit_formation_end": as_dates(seeds, formed),
        "cleanup_end": as_dates(seeds, cleaned),
    }
    if ended:
        dates["memorisation_end"] = as_dates(seeds, ended)
    return xr.Dataset(
        {**dates, "decided": ("seed", np.array(decided, bool))},
        attrs={"level": rule.level, "reference_step": int(steps[-1])},
    )


def _settled_fall(
    steps: np.ndarray, loss: Float[np.ndarray, " step"], generalised: float
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Where log loss has made 10 % and 90 % of its fall; None where that is not decided.

    Args:
        steps: of the snapshots.
        loss: test loss; values that have no logarithm are left out.
        generalised: upper bound of generalising; inf for never.
    """
    # A loss of 0 has no logarithm.
    logs = np.log(np.where((loss > 0) & np.isfinite(loss), loss, np.nan))
    before = logs[steps <= generalised]
    if np.isinf(generalised) or np.isnan(before).all():
        return None
    top = int(np.nanargmax(before))
    high, low = float(before[top]), float(np.nanmin(logs[top:]))
    earlier = logs[top:][steps[top:] <= steps[-1] / 2]
    if np.isnan(earlier).all() or np.nanmin(earlier) - low >= SETTLED * (high - low):
        return None
    begin, end = (
        first_crossing(steps[top:], logs[top:], high - share * (high - low), "down")
        for share in (0.1, 0.9)
    )
    return begin, end


def _smallest(
    steps: np.ndarray, values: Float[np.ndarray, " step"], first: float, last: float
) -> tuple[float, float]:
    """The snapshots around the one between two steps at which values are smallest.

    It is the pair (``first``, ``last``) where no value between them is finite.
    """
    inside = np.flatnonzero((steps >= first) & (steps <= last) & np.isfinite(values))
    if not len(inside):
        return first, last
    i = int(inside[np.argmin(values[inside])])
    return float(steps[max(i - 1, 0)]), float(steps[min(i + 1, len(steps) - 1)])
