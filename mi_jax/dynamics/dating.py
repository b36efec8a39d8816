"""Dates between two snapshots: when seeds memorised and generalised, and the phases of grokking.

A date is a pair [lower, upper] in steps. What is dated had not happened at ``lower`` and had
happened by ``upper``, the next snapshot. The lower bound is -inf where it had happened by the first
snapshot, the upper bound is +inf where it had not by the last. A date with a finite upper bound is
fixed: it does not change when training is continued, and nothing is dated at the last snapshot for
being the last.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float

from mi_jax.dynamics.levels import as_dates, check_curves, crossings

ACCURACY = 0.99
"""Accuracy at which a seed has memorised (training) or generalised (test)."""

_MAY_HAVE_BEEN = 0.5
"""Share of a level from which on a curve that begins late may have reached the level before."""

NEAR_LARGEST = 0.95
"""Share of the largest test loss down to which a circuit still counts as forming."""

DATES = ("memorised", "circuit_formation_end", "cleanup_end", "generalised")
"""Names of the dates of ``grokking_dates``."""

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
    "Circuit formation ends with the last snapshot before generalising at which test loss is at"
    " least 95 % of its largest since memorising. Clean-up ends at generalising. A date is the pair"
    " of snapshots between which it happened. What had happened by the first snapshot, or has not"
    " happened by the last, is open on that side. No date that has happened moves when training is"
    " continued."
)
"""The rule by which ``grokking_dates`` dates phases, for readers of a report."""


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
        if not least <= self.gap < float("inf"):
            raise ValueError(
                f"gap={self.gap} is no gap in {self.unit}. Give a finite number of at least"
                f" {least}."
            )

    @property
    def text(self) -> str:
        """The rule in two sentences.

        Example:
            >>> GrokkingRule().text
            'A seed has memorised (generalised) when its training (test) accuracy first reaches
            0.99. It has grokked if it generalised at 2 times the step of memorising or later.'
        """
        later = "times the step of memorising" if self.unit == "ratio" else "steps after memorising"
        return (
            "A seed has memorised (generalised) when its training (test) accuracy first reaches"
            f" {self.level:g}. It has grokked if it generalised at {self.gap:,g} {later} or later."
        )


GROKKING = GrokkingRule()
"""The rule of this package: accuracy .99, generalising at twice the step of memorising or later."""

LIU_2022 = GrokkingRule(level=0.9, gap=1000.0, unit="steps")
"""The rule of Liu et al. 2022 (arXiv 2205.10343): accuracy .9, generalising 1,000 steps later."""

GROKKING_RULES = {"default": GROKKING, "liu_2022": LIU_2022}
"""The named rules."""


def rule_of(attrs: Mapping[Hashable, Any]) -> GrokkingRule:
    """The rule that dates were made by, from the attrs of a dataset that holds them.

    Args:
        attrs: with ``level``, ``gap`` and ``gap_unit``, as ``grokking_dates`` stores them.

    Example:
        >>> rule_of({"level": 0.9, "gap": 1000.0, "gap_unit": "steps"}) == LIU_2022
        True
    """
    unit = "steps" if attrs["gap_unit"] == "steps" else "ratio"
    return GrokkingRule(float(attrs["level"]), float(attrs["gap"]), unit)


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
    whatever happened between the snapshots; step 0 has no multiples, so that a seed that memorised
    by then counts as if it had at step 1. Other verdicts: "generalised at once" where both
    happened and that does not hold; "generalised without memorising"; "did not grok" (memorised
    alone); "did not memorise"; "diverged" in place of the last two where a curve is not finite at
    the last snapshot; "undecided" where memorising or generalising may lie before the first
    snapshot of a history that does not begin at step 0 (``first_reached``), and the rule does not
    hold all the same.

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
    memorised = first_reached(dataset["train_accuracy"], rule.level)
    generalised = first_reached(dataset["test_accuracy"], rule.level)
    dates = {"memorised": memorised, "generalised": generalised}
    if "test_loss" in dataset:
        steps, losses = dataset["step"].values, dataset["test_loss"].transpose("seed", "step")
        pairs = list(zip(memorised.values, generalised.values, strict=True))
        formed = [
            _formation_end(steps, loss, learned, known)
            for loss, (learned, known) in zip(losses.values, pairs, strict=True)
        ]
        absent = np.isnan(np.array(formed).reshape(-1, 2))
        dates["circuit_formation_end"] = as_dates(seeds, formed)
        dates["cleanup_end"] = generalised.where(~absent)
    verdicts = [
        _verdict(memorised.values[row], generalised.values[row], dataset.sel(seed=seed), rule)
        for row, seed in enumerate(seeds)
    ]
    return xr.Dataset(
        {**dates, "verdict": ("seed", np.array(verdicts, dtype=object))},
        attrs={"level": rule.level, "gap": rule.gap, "gap_unit": rule.unit},
    )


def first_reached(accuracy: xr.DataArray, level: float) -> xr.DataArray:
    """The snapshots between which each seed's accuracy first reaches a level.

    As ``crossings``, but for a history whose beginning is missing: a seed whose accuracy is half of
    the level or more at a first snapshot after step 0 may have reached it before and have fallen
    back for a while, so that the lower bound of its date is -inf.

    Args:
        accuracy: dims (seed, step).
        level: accuracy, between 0 and 1.

    Returns:
        Dates in steps, dims (seed, bound).

    Example:
        >>> curve = xr.DataArray(
        ...     [[0.9, 0.8, 1.0], [0.1, 0.8, 1.0]],
        ...     {"seed": [0, 1], "step": [500, 600, 700]},
        ...     ("seed", "step"),
        ... )
        >>> first_reached(curve, 0.99).values.tolist()
        [[-inf, 700.0], [600.0, 700.0]]
    """
    dates = crossings(accuracy, level)
    curves = accuracy.transpose("seed", "step")
    if curves["step"].values[0] == 0:
        return dates
    for row, values in enumerate(curves.values):
        finite = values[np.isfinite(values)]
        if len(finite) and finite[0] >= _MAY_HAVE_BEEN * level:
            dates[row, 0] = float("-inf")
    return dates


def _formation_end(
    steps: np.ndarray,
    loss: Float[np.ndarray, " step"],
    memorising: Float[np.ndarray, " 2"],
    generalising: Float[np.ndarray, " 2"],
) -> tuple[float, float]:
    """The last snapshot at which test loss is near its largest, and the next; NaN where absent.

    Args:
        steps: of the snapshots.
        loss: test loss at the snapshots.
        memorising: its two bounds. The upper one is the first snapshot of the phase; inf for never.
        generalising: its two bounds. The upper one is the first snapshot after the phase; inf for
            never.
    """
    absent = (float("nan"), float("nan"))
    memorised, generalised = memorising[1], generalising[1]
    late = steps[0] > 0
    memorised_before = late and bool(np.isinf(memorising[0]))
    # A larger loss may have come before the first snapshot, with an earlier end.
    began_before = memorised_before or (late and bool(np.isinf(generalising[0])))
    if np.isinf(memorised) and not memorised_before:
        # Seeds that may still memorise have their phases after the last snapshot.
        lower = float("-inf") if began_before else float(steps[-1])
        return (lower, float("inf")) if np.isinf(generalised) else absent
    inside = np.flatnonzero((steps >= memorised) & (steps < generalised) & np.isfinite(loss))
    if not len(inside):
        if memorised_before:
            # Both may lie before the first snapshot, with the phases between them.
            return float("-inf"), float(generalised)
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
    begun_late = curves["step"].values[0] > 0
    if np.isinf(generalised[1]):
        names = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")
        last = [curves[name].values[-1] for name in names if name in curves]
        if not np.isfinite(last).all():
            return "diverged"
        if begun_late and (np.isinf(generalised).all() or np.isinf(memorised).all()):
            return "undecided"
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
    is_open = np.isinf(memorised[0]) or np.isinf(generalised[0])
    return "undecided" if begun_late and is_open else "generalised at once"
