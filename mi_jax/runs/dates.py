"""Dates of a run: when each seed memorised, formed its circuit and generalised.

What happened before a fork or a zoom begins is dated on the curves of the runs that it descends
from, so that its dates are those of its history and not of its folder.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from mi_jax.dynamics import (
    DATES,
    GROKKING,
    GrokkingRule,
    date_interval,
    first_reached,
    grokking_dates,
)
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.history import History
from mi_jax.measuring.stored import read_steps, stored_measures
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.run import Run
from mi_jax.training.trajectory import Trajectory

CURVES = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")
"""The readings that dates are made of."""


def run_dates(
    run: Run, rule: GrokkingRule = GROKKING, *, readings: xr.Dataset | None = None
) -> xr.Dataset:
    """Dates what happened in a run, or before it in the runs that it was forked from.

    Args:
        run: with stored readings of its accuracies (``run.measure()``), unless they are given.
        rule: the level and the gap; see ``dynamics.grokking_dates``.
        readings: of the run, dims (seed, step); ``run.measures`` by default.

    Returns:
        The dataset of ``dynamics.grokking_dates``. Of a task without a training set, which has
        nothing to memorise, it holds ``generalised`` alone and no verdict; without a reading of
        test accuracy it is empty.

    Example:
        dates = run_dates(mi_jax.open_run("checkpoints/grokking"), GrokkingRule(level=0.95))
        dates["generalised"].sel(seed=0).values  # the two snapshots between which it happened
    """
    curves = history_curves(run, run.measures if readings is None else readings)
    # Each directory by itself: the ancestors of one may be missing.
    dates = [_dated(one, rule) for one in curves]
    if len(dates) == 1:
        return dates[0]
    joined = xr.concat(dates, "seed", combine_attrs="override") if dates[0] else dates[0]
    return joined.sel(seed=list(run.seeds)) if joined else joined


def _dated(curves: xr.Dataset, rule: GrokkingRule) -> xr.Dataset:
    """The dates of the seeds of one directory."""
    attrs = {"level": rule.level, "gap": rule.gap, "gap_unit": rule.unit}
    if "test_accuracy" not in curves:
        return xr.Dataset(attrs=attrs)
    if "train_accuracy" not in curves:
        generalised = first_reached(curves["test_accuracy"], rule.level)
        return xr.Dataset({"generalised": generalised}, attrs=attrs)
    return grokking_dates(curves, rule)


def history_curves(
    run: Run, readings: xr.Dataset, names: Sequence[str] = CURVES
) -> list[xr.Dataset]:
    """Readings of a run from the beginning of its history on.

    Args:
        run: whose ancestors are read up to its first snapshot. Where one of them is missing, the
            curves begin at the first snapshot after it.
        readings: of the run, dims (seed, step, ...).
        names: of measures that give one variable of their own name; losses and accuracies by
            default.

    Returns:
        For each directory of the run, the named variables that the readings hold, dims
        (seed, step, ...).
    """
    held = [name for name in names if name in readings]
    own = readings[held].reset_coords(drop=True)
    if run.parent is None or not own:
        return [own]
    return [
        _with_ancestors(trajectory, own.sel(seed=list(trajectory.seeds)), held)
        for trajectory in run.trajectories
    ]


def dates_json(dates: xr.Dataset) -> dict[str, Any]:
    """Dates in the form that the command line prints as JSON.

    Args:
        dates: of ``run_dates``.

    Returns:
        By the name of the date: ``seeds``, the two bounds by the label of the seed; ``median`` and
        ``interval`` over seeds, each with two bounds; ``coverage``, the least probability that such
        an interval covers the true median. None stands for an open bound, and where there is no
        interval for both of its ends and its coverage. Seeds that do not have the date (a phase
        that is absent) are left out of ``seeds``.

    Example:
        >>> dates = xr.Dataset(
        ...     {"generalised": (("seed", "bound"), [[10.0, 20.0], [6000.0, np.inf]])},
        ...     {"seed": [0, 1], "bound": ["lower", "upper"]},
        ... )
        >>> made = dates_json(dates)["generalised"]
        >>> made["seeds"], made["interval"], made["coverage"]
        ({'0': [10, 20], '1': [6000, None]}, [10, None], 0.5)
    """
    return {name: _date_json(dates[name]) for name in DATES if name in dates}


def verdicts_json(dates: xr.Dataset) -> dict[str, str]:
    """The verdict on each seed by its label; empty where there is none.

    Args:
        dates: of ``run_dates``.
    """
    if "verdict" not in dates:
        return {}
    pairs = zip(dates["seed"].values, dates["verdict"].values, strict=True)
    return {str(seed): str(verdict) for seed, verdict in pairs}


def _date_json(date: xr.DataArray) -> dict[str, Any]:
    """One date of ``dates_json``."""
    rows = date.transpose("seed", "bound").values.tolist()
    pairs = zip(date["seed"].values.tolist(), rows, strict=True)
    over = date_interval(date)
    return {
        "seeds": {str(seed): bounds_json(*row) for seed, row in pairs if row[0] == row[0]},
        "median": bounds_json(*over.middle),
        "interval": bounds_json(over.low, over.high),
        "coverage": None if over.kind == "none" else over.coverage,
    }


def bounds_json(lower: float, upper: float) -> list[float | int | None]:
    """Two bounds in steps, with None for one that is not finite and whole numbers as such."""
    return [
        None if not np.isfinite(bound) else int(bound) if bound == int(bound) else float(bound)
        for bound in (lower, upper)
    ]


def _with_ancestors(trajectory: Trajectory, own: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """The curves of a run after those of its ancestors, each up to where the next one begins."""
    earlier = [
        _curves_of(ancestor, names, steps.tolist()).sel(seed=list(trajectory.seeds))
        for ancestor, steps in History(trajectory).earlier()
    ]
    return xr.concat([*earlier, own], "step", combine_attrs="override") if earlier else own


def _curves_of(trajectory: Trajectory, names: Sequence[str], steps: list[int]) -> xr.Dataset:
    """Curves of an ancestor at some of its snapshots; nothing is stored in its folder."""
    stored = stored_measures(trajectory, earlier=False)
    if set(names) <= set(stored):
        return stored[list(names)].sel(step=steps).reset_coords(drop=True)
    subject = Experiment.from_json(trajectory.record["experiment"]).subject()
    measures, _ = choose(list(names), subject)
    return read_steps(trajectory, subject, measures, steps)[list(names)].reset_coords(drop=True)
