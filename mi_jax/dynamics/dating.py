"""Dates between two snapshots: when seeds memorised and generalised, and the phases of grokking.

A date is a pair [lower, upper] in steps. What is dated had not happened at ``lower`` and had
happened by ``upper``, the next snapshot. The lower bound is -inf where it had happened by the first
snapshot, the upper bound is +inf where it had not by the last. A date with a finite upper bound is
fixed: it does not change when training is continued, and nothing is dated at the last snapshot for
being the last.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from mi_jax.dynamics.transitions import ACCURACY, check_curves

BOUNDS = ("lower", "upper")
"""Coordinates of the dim ``bound`` of dates."""

NEAR_LARGEST = 0.95
"""Share of the largest test loss down to which a circuit still counts as forming."""

SETTLED = 0.01
"""Largest share of a curve's fall that its last doubling of steps may add, for it to be settled."""

VERDICTS = (
    "grokked",
    "generalised at once",
    "generalised without memorising",
    "did not grok",
    "did not memorise",
    "diverged",
    "undecided",
)
"""Verdicts of ``grokking_dates``."""

PHASE_RULE = (
    "Memorised and generalised: training and test accuracy first reach the level. Circuit formation"
    " ends with the last snapshot before generalising at which test loss is at least 95 % of its"
    " largest since memorising. Clean-up ends at generalising. A date is the pair of snapshots"
    " between which it happened; no date moves when training is continued."
)
"""The rule by which ``grokking_dates`` dates, for readers of a report."""


@dataclass(frozen=True)
class GrokkingRule:
    """The rule that tells grokking from generalising at once.

    Attributes:
        level: accuracy at which a seed has memorised (training) or generalised (test), between 0
            and 1.
        gap: least distance between memorising and generalising.
        unit: "ratio" where generalising has to come at ``gap`` times the step of memorising or
            later, "steps" where it has to come ``gap`` steps later.

    Raises:
        ValueError: for a level outside (0, 1], a negative gap, or a ratio below 1.
    """

    level: float = ACCURACY
    gap: float | int = 2.0
    unit: Literal["ratio", "steps"] = "ratio"

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if not 0 < self.level <= 1:
            raise ValueError(f"level={self.level} is no accuracy. Give one above 0 and up to 1.")
        least = 1 if self.unit == "ratio" else 0
        if not self.gap >= least:
            raise ValueError(
                f"gap={self.gap} is too small for a gap in {self.unit}. Give at least {least}."
            )


GROKKING = GrokkingRule()
"""The rule of this package: accuracy .99, generalising at twice the step of memorising or later."""

LIU_2022 = GrokkingRule(level=0.9, gap=1000.0, unit="steps")
"""The rule of Liu et al. 2022 (arXiv 2205.10343): accuracy .9, generalising 1,000 steps later."""

GROKKING_RULES = {"default": GROKKING, "liu_2022": LIU_2022}
"""The named rules."""


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
        level: in the unit of the values.
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
    finite = np.isfinite(values)
    x, y = np.asarray(steps, np.float64)[finite], np.asarray(values, np.float64)[finite]
    # Comparing the readings themselves, not interpolated dates, keeps a level that is met exactly
    # at a snapshot free of rounding.
    reached = y >= level if direction == "up" else y <= level
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
    return _dates(curve["seed"].values, pairs)


def grokking_dates(dataset: xr.Dataset, rule: GrokkingRule = GROKKING) -> xr.Dataset:
    """Dates memorising, the phases of grokking and generalising of every seed, with a verdict.

    - ``memorised``, ``generalised``: training and test accuracy first reach ``rule.level``.
    - ``circuit_formation_end``: the last snapshot before generalising at which test loss is at
      least 95 % of its largest since memorising, and the snapshot after it. Before generalising
      it is not decided: its lower bound is that snapshot so far, its upper bound inf.
    - ``cleanup_end``: as ``generalised``.

    The two phases are absent (NaN) where there is no snapshot with a finite test loss from
    memorising up to generalising. Otherwise memorised, circuit_formation_end and cleanup_end are in
    order. A date with a finite upper bound is the same for every longer training.

    A seed has "grokked" where lower(generalised) >= gap * upper(memorised), so that it is certain
    whatever happened between the snapshots. Other verdicts: "generalised at once" where both
    happened and that does not hold; "generalised without memorising"; "did not grok" (memorised
    alone); "did not memorise"; "diverged" in place of the last two where a curve is not finite at
    the last snapshot; "undecided" where training or generalising lies before the first snapshot of
    a history that does not begin at step 0, and the rule does not hold all the same.

    Args:
        dataset: holds train_accuracy and test_accuracy, between 0 and 1, dims (seed, step); and
            test_loss for the phases, and train_loss, where there are any.
        rule: the level and the gap; ``GROKKING`` by default, ``LIU_2022`` for the published ones.

    Returns:
        memorised, generalised, and with test_loss circuit_formation_end and cleanup_end: dates in
        steps, dims (seed, bound). verdict: one of ``VERDICTS``, dims (seed). The attrs hold
        ``level``, ``gap`` and ``gap_unit``.

    Raises:
        ValueError: if the dataset lacks train_accuracy or test_accuracy.

    Example:
        >>> curves = {
        ...     "train_accuracy": [0.0, 1.0, 1.0, 1.0, 1.0],
        ...     "test_accuracy": [0.0, 0.0, 0.1, 0.9, 1.0],
        ...     "test_loss": [2.0, 5.0, 4.9, 0.1, 0.001],
        ... }
        >>> dataset = xr.Dataset(
        ...     {name: (("seed", "step"), np.array([row])) for name, row in curves.items()},
        ...     {"seed": [0], "step": [0, 100, 1000, 5000, 10_000]},
        ... )
        >>> dates = grokking_dates(dataset)
        >>> dates["circuit_formation_end"].values.tolist(), dates["cleanup_end"].values.tolist()
        ([[1000.0, 5000.0]], [[5000.0, 10000.0]])
        >>> dates["verdict"].values.tolist()
        ['grokked']
    """
    check_curves(dataset, ("train_accuracy", "test_accuracy"))
    seeds = dataset["seed"].values
    memorised = crossings(dataset["train_accuracy"], rule.level)
    generalised = crossings(dataset["test_accuracy"], rule.level)
    dates = {"memorised": memorised, "generalised": generalised}
    if "test_loss" in dataset:
        steps, losses = dataset["step"].values, dataset["test_loss"].transpose("seed", "step")
        pairs = list(zip(memorised.values, generalised.values, strict=True))
        formed = [
            _formation_end(steps, loss, learned[0], learned[1], known[1])
            for loss, (learned, known) in zip(losses.values, pairs, strict=True)
        ]
        absent = np.isnan(np.array(formed).reshape(-1, 2))
        dates["circuit_formation_end"] = _dates(seeds, formed)
        dates["cleanup_end"] = generalised.where(~absent)
    verdicts = [
        _verdict(memorised.values[row], generalised.values[row], dataset.sel(seed=seed), rule)
        for row, seed in enumerate(seeds)
    ]
    return xr.Dataset(
        {**dates, "verdict": ("seed", np.array(verdicts, dtype=object))},
        attrs={"level": rule.level, "gap": rule.gap, "gap_unit": rule.unit},
    )


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
        "circuit_formation_end": _dates(seeds, formed),
        "cleanup_end": _dates(seeds, cleaned),
    }
    if ended:
        dates["memorisation_end"] = _dates(seeds, ended)
    return xr.Dataset(
        {**dates, "decided": ("seed", np.array(decided, bool))},
        attrs={"level": rule.level, "reference_step": int(steps[-1])},
    )


def _dates(seeds: np.ndarray, pairs: list[tuple[float, float]]) -> xr.DataArray:
    """Pairs of bounds per seed as an array of dims (seed, bound)."""
    return xr.DataArray(
        np.array(pairs, np.float64).reshape(-1, 2),
        {"seed": seeds, "bound": list(BOUNDS)},
        ("seed", "bound"),
        attrs={"units": "steps"},
    )


def _formation_end(
    steps: np.ndarray,
    loss: Float[np.ndarray, " step"],
    before_memorised: float,
    memorised: float,
    generalised: float,
) -> tuple[float, float]:
    """The last snapshot at which test loss is near its largest, and the next; NaN where absent.

    Args:
        steps: of the snapshots.
        loss: test loss at the snapshots.
        before_memorised: lower bound of memorising.
        memorised: its upper bound, the first snapshot of the phase; inf for never.
        generalised: upper bound of generalising, the first snapshot after the phase; inf for never.
    """
    absent = (float("nan"), float("nan"))
    if np.isinf(memorised):
        # Seeds that may still memorise have their phases after the last snapshot.
        return (float(steps[-1]), float("inf")) if np.isinf(generalised) else absent
    inside = np.flatnonzero((steps >= memorised) & (steps < generalised) & np.isfinite(loss))
    # A larger loss may have come before the first snapshot, with an earlier end.
    began_before = np.isinf(before_memorised) and steps[0] > 0
    if not len(inside):
        lower = float("-inf") if began_before else float(memorised)
        return (lower, float("inf")) if np.isinf(generalised) else absent
    near = inside[loss[inside] >= NEAR_LARGEST * loss[inside].max()]
    later = inside[inside > near[-1]]
    upper = float(steps[later[0]]) if len(later) else float(generalised)
    lower = float(steps[near[-1]])
    if np.isinf(generalised):
        # A larger loss may still come, which would move the end to later snapshots.
        upper = float("inf")
    if began_before:
        lower = float("-inf")
    return lower, upper


def _verdict(
    memorised: Float[np.ndarray, " 2"],
    generalised: Float[np.ndarray, " 2"],
    curves: xr.Dataset,
    rule: GrokkingRule,
) -> str:
    """The verdict on one seed, by the bounds of its two dates."""
    if np.isinf(generalised[1]):
        names = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")
        last = [curves[name].values[-1] for name in names if name in curves]
        if not np.isfinite(last).all():
            return "diverged"
        return "did not memorise" if np.isinf(memorised[1]) else "did not grok"
    if np.isinf(memorised[1]):
        return "generalised without memorising"
    if rule.unit == "steps":
        late = generalised[0] - memorised[1] >= rule.gap
    else:
        # Step 0 has no multiples: a seed that memorised by then counts from step 1.
        late = generalised[0] >= rule.gap * max(memorised[1], 1.0)
    if late:
        return "grokked"
    begun_late = curves["step"].values[0] > 0
    is_open = np.isinf(memorised[0]) or np.isinf(generalised[0])
    return "undecided" if begun_late and is_open else "generalised at once"


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
