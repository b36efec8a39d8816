"""Comparison of histories: a run and its forks in one dataset and one figure."""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.figure import Figure

from mi_jax import plots
from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.basics.pytrees import dotted
from mi_jax.dynamics import DATES, GROKKING, GrokkingRule, date_differences
from mi_jax.measuring.choosing import Chosen
from mi_jax.measuring.history import History
from mi_jax.measuring.program import Watch as MeasureWatch
from mi_jax.runs.dates import CURVES, dates_json, run_dates
from mi_jax.runs.run import Run, open_run

READ = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
"""The measures that are read of every history by default, if the task has the split."""

_FIRST = "parent"
"""The condition of the run that the others are compared with."""

AnyRun = Run | str | os.PathLike[str]
"""A run, or its directory."""


class Comparison(NamedTuple):
    """Histories beside each other.

    Attributes:
        dataset: dims (condition, seed, step), where the run itself is the condition "parent". NaN
            where a history has no snapshot. ``loss`` is the training loss at each snapshot's step,
            ``weight_distance`` is ||theta - theta_parent|| / ||theta_parent|| over all parameters
            together; the scalars of the measures follow. The attr ``parted`` holds the steps at
            which histories left that of the parent (``parted_at``), those that never do left out;
            ``common_step`` the last step at which all histories have a snapshot (missing where
            there is none); ``left_out`` sentences about readings that cannot stand side by side.
        figure: a panel for each variable, a line for each history.
        dates: when each history memorised, formed its circuit and generalised: the variables of
            ``dynamics.grokking_dates`` by condition, dims (condition, seed, bound), ``verdict``
            with dims (condition, seed); and for each date <name>_shift, the steps by which it comes
            later than in the parent, paired by seed (``dynamics.date_differences``). What happened
            before two histories parted (``parted_at``) is one event in both, with the shift 0.
            Empty where a history has no test accuracy.
    """

    dataset: xr.Dataset
    figure: Figure
    dates: xr.Dataset


def compare(
    parent: AnyRun,
    forks: Sequence[AnyRun] | Mapping[str, AnyRun],
    *,
    measures: Sequence[Chosen] | None = None,
    rule: GrokkingRule = GROKKING,
    watch: MeasureWatch = lambda done, total: None,
) -> Comparison:
    """Compare a run with its forks, at the snapshots of all of them, and the dates of each.

    At a step that several histories have, all readings are of the same step, and retrospective ones
    have one final model: the last snapshot of the run at the root of the history.

    Args:
        parent: the run, or its directory.
        forks: runs with the seeds and parameters of the parent. They are labelled by the keys of a
            mapping, else by the names of their directories.
        measures: names, Measures or functions that give one number per checkpoint; losses and
            accuracies by default. A reading that a run does not hold yet is made and stored there.
        rule: the accuracy and the gap that date memorising, generalising and grokking.
        watch: called with (snapshots done, snapshots in all) for each history.

    Returns:
        The dataset, the figure and the dates.

    Raises:
        ConfigError: for no fork, or two forks of one name.
        MeasureError: for an unknown measure, or one that this model or task does not allow.
        RunError: for a fork with other seeds or other parameters than the parent.

    Example:
        fork = mi_jax.fork(run, step=400, interventions=[Freeze("unembed.*")])
        comparison = mi_jax.compare(run, {"frozen readout": fork})
        comparison.dataset["weight_distance"].sel(condition="frozen readout")
        dynamics.date_interval(
            comparison.dates["generalised_shift"].sel(condition="frozen readout")
        )
    """
    first = _opened(parent)
    histories = {_FIRST: first, **_labelled(forks)}
    shapes = _shapes(first)
    for label, run in histories.items():
        if run.seeds != first.seeds:
            raise RunError(
                f"{label} has the seeds {list(run.seeds)}, the parent {list(first.seeds)}. Compare"
                " runs with the same seeds."
            )
        if _shapes(run) != shapes:
            raise RunError(
                f"{label} has other parameters than the parent. Compare runs of the same model."
            )
    names = _readable(first, READ) if measures is None else list(measures)
    readings = [_history(first, run, names, watch) for run in histories.values()]
    left_out = _of_other_references(readings)
    readings = [reading.drop_vars([*left_out, "previous_step"], errors="ignore")
                for reading in readings]  # fmt: skip
    joined = xr.concat(readings, "condition", join="outer", combine_attrs="drop").assign_coords(
        condition=list(histories)
    )
    for name in joined.data_vars:
        joined[name].attrs = dict(readings[0][name].attrs)
    left = [(parted_at(first, run), run) for run in histories.values()]
    parted = [int(step) for step, run in left if step is not None and step < run.steps[-1]]
    dataset = joined.sortby("step").assign_attrs(parted=parted)
    common = functools.reduce(np.intersect1d, [run.steps for run in histories.values()])
    if len(common):
        dataset.attrs["common_step"] = int(common[-1])
    if left_out:
        dataset.attrs["left_out"] = (
            f"{', '.join(left_out)} is left out. The histories compare it with different final"
            " models. Compare runs of one history."
        )
    dates = _dates(histories, rule, watch)
    return Comparison(dataset, plots.diverging_histories(dataset, dates=dates), dates)


def parted_at(run: Run, other: Run) -> float | None:
    """The step until which two histories are one, whichever of them was forked from the other.

    A fork leaves its parent at the step where it begins. A zoom, and a fork that changes nothing,
    leave theirs after their own last step. Two forks of one run leave each other where the first of
    them leaves it.

    Args:
        run: a run.
        other: another one, with the same seeds.

    Returns:
        The step at which they leave their nearest common ancestor, which may be one of the two;
        inf for a run and itself, None for runs without a common ancestor. A missing ancestor is
        known by its hash, and those before it are unknown.
    """
    ours, theirs = _left_at(run), _left_at(other)
    return max(
        (min(ours[name], theirs[name]) for name in ours.keys() & theirs.keys()), default=None
    )


def _left_at(run: Run) -> dict[str, float]:
    """By the hash of the run and of each of its ancestors, the step until which they are one."""
    history = History(run.trajectories[0])
    until: dict[str, float] = {history.trajectory.record["hash"]: np.inf}
    step = np.inf
    for one in (history.trajectory, *history.ancestors):
        if one.parent is not None:
            left = one.parent[1] if History(one).departs else one.last
            step = min(step, float(left))
            until[one.record["parent"]["hash"]] = step
    return until


def shifts_json(dates: xr.Dataset) -> dict[str, Any]:
    """The shifts of each history's dates in the form that the command line prints as JSON.

    Args:
        dates: of a ``Comparison``.

    Returns:
        By condition, without the parent, and by the name of the date, what ``dates_json`` has.
    """
    names = [name for name in DATES if f"{name}_shift" in dates]
    renamed = {f"{name}_shift": name for name in names}
    shifts = dates[list(renamed)].rename(renamed)
    labels = dates["condition"].values[1:].tolist() if names else []
    return {label: dates_json(shifts.sel(condition=label)) for label in labels}


def _dates(histories: Mapping[str, Run], rule: GrokkingRule, watch: MeasureWatch) -> xr.Dataset:
    """The dates of every history, and how much later than in the first one each comes."""
    by_history: list[xr.Dataset] = []
    for run in histories.values():
        read = run.measure(_readable(run, CURVES), watch=watch)
        dates = run_dates(run, rule, readings=read)
        if not dates:
            return xr.Dataset()
        by_history.append(dates)
    first = by_history[0]
    for dates, run in zip(by_history, histories.values(), strict=True):
        parted = parted_at(histories[_FIRST], run)
        for name in [name for name in DATES if name in first and name in dates]:
            shift = date_differences(first[name], dates[name])
            if parted is not None:
                # What had happened when the histories parted is one event in both. The phases
                # are fixed at generalising, the other dates when they happen. One of the two may
                # have seen it on snapshots that the other does not have.
                fixed = "memorised" if name == "memorised" else "generalised"
                seen = [both[fixed].sel(bound="upper", drop=True) for both in (first, dates)]
                happened = np.minimum(*seen) <= parted
                # A phase that a seed does not have has no shift.
                present = shift.notnull().all("bound")
                shift = shift.where(~(happened & present), 0.0)
            dates[f"{name}_shift"] = shift
    return xr.concat(
        by_history, xr.IndexVariable("condition", list(histories)), combine_attrs="override"
    )


def _of_other_references(readings: Sequence[xr.Dataset]) -> list[str]:
    """Select the readings that the histories compare with different final models."""
    hashes = [
        {name: reading[name].attrs.get("reference_hash") for name in reading.data_vars}
        for reading in readings
    ]
    return [str(name) for name in hashes[0] if len({by_name.get(name) for by_name in hashes}) > 1]


def _opened(run: AnyRun) -> Run:
    return run if isinstance(run, Run) else open_run(run)


def _shapes(run: Run) -> dict[str, tuple[int, ...]]:
    shapes = jax.eval_shape(run.subject.model.init, jax.random.key(0))
    return {name: value.shape for name, value in dotted(shapes).items()}


def _labelled(forks: Sequence[AnyRun] | Mapping[str, AnyRun]) -> dict[str, Run]:
    if isinstance(forks, Mapping):
        return {label: _opened(run) for label, run in forks.items()}
    runs = [_opened(run) for run in forks]
    if not runs:
        raise ConfigError("compare was given no fork. Give at least one.")
    names = [run.path.name for run in runs]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"Forks are labelled by the names of their directories, which are {names}. Give a"
            " mapping from labels to forks."
        )
    return dict(zip(names, runs, strict=True))


def _readable(run: Run, names: Sequence[str]) -> list[str]:
    """Select the measures whose split the task has."""
    splits = run.evaluation().batches
    return [name for name in names if name.split("_")[0] in splits]


def _history(parent: Run, run: Run, names: Sequence[Chosen], watch: MeasureWatch) -> xr.Dataset:
    """Read one history at its own snapshots: dims (seed, step)."""
    readings = run.measure(names, watch=watch)
    scalars = {
        name: readings[name]
        for name in readings.data_vars
        if set(readings[name].dims) == {"seed", "step"}
    }
    losses = run.losses.reindex(step=run.steps)
    distance = xr.DataArray(
        _distance(parent, run), {"seed": list(run.seeds), "step": run.steps}, ("seed", "step")
    )
    return xr.Dataset({"loss": losses, **scalars, "weight_distance": distance})


def _distance(parent: Run, run: Run) -> Float[np.ndarray, "seed step"]:
    """||theta - theta_parent|| / ||theta_parent|| where both have a snapshot, else NaN."""
    distance = np.full((len(run.seeds), len(run.steps)), np.nan)
    common = np.intersect1d(parent.steps, run.steps)
    for column, step in enumerate(run.steps):
        if step in common:
            ours, theirs = (jax.tree.leaves(history.stack([step])) for history in (run, parent))
            squares = sum(_squares(x - y) for x, y in zip(ours, theirs, strict=True))
            distance[:, column] = np.sqrt(squares / sum(_squares(y) for y in theirs))
    return distance


def _squares(x: Float[np.ndarray, "one seed ..."]) -> Float[np.ndarray, " seed"]:
    # In float64, since the squares of all parameters are summed.
    return np.square(x[0].astype(np.float64)).reshape(x.shape[1], -1).sum(axis=1)
