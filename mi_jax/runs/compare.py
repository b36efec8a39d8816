"""Comparing histories: a run and its forks in one dataset and one figure, in losses, measures and
weights.
"""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.figure import Figure

from mi_jax import plots
from mi_jax.basics.errors import RunError, require
from mi_jax.basics.pytrees import dotted
from mi_jax.measuring.choosing import Chosen
from mi_jax.measuring.program import Watch as MeasureWatch
from mi_jax.runs.run import Run, open_run

READ = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
"""What is read of every history by default, where it can be."""

AnyRun = Run | str | os.PathLike[str]


class Comparison(NamedTuple):
    """Histories beside each other."""

    dataset: xr.Dataset
    """Dims (condition, seed, step): the run is the condition "parent"; NaN where a history has no
    snapshot. ``loss`` is the training loss of each update; ``weight_distance`` is ||theta -
    theta_parent|| / ||theta_parent||, all parameters together; the measures' scalars follow. The
    attr ``parted`` holds the step at which each fork left the parent.
    """
    figure: Figure


def compare(
    parent: AnyRun,
    forks: Sequence[AnyRun] | Mapping[str, AnyRun],
    *,
    measures: Sequence[Chosen] | None = None,
    watch: MeasureWatch = lambda done, total: None,
) -> Comparison:
    """The diverging histories of a run and its forks, at the snapshots of either.

    Args:
        forks: runs with the parent's seeds; their folders' names label them, or the keys of a
            mapping.
        measures: names, Measures or functions with one number a checkpoint; losses and accuracies
            by default. What isn't stored in a run yet is read and stored there.

    Raises:
        RunError: for a fork of other seeds or other parameters.
    """
    first = _opened(parent)
    histories, shapes = {"parent": first, **_labelled(forks)}, _shapes(first)
    for label, run in histories.items():
        if run.seeds != first.seeds:
            raise RunError(
                f"{label} has the seeds {list(run.seeds)}, the parent {list(first.seeds)}; compare"
                " runs of equal seeds"
            )
        if _shapes(run) != shapes:
            raise RunError(
                f"{label} has other parameters than the parent; compare runs of one model"
            )
    names = _readable(first) if measures is None else list(measures)
    read = [_history(first, run, names, watch) for run in histories.values()]
    joined = xr.concat(read, "condition", join="outer", combine_attrs="drop").assign_coords(
        condition=list(histories)
    )
    for name in joined.data_vars:
        joined[name].attrs = dict(read[0][name].attrs)
    parted = [
        run.parent[1]
        for run in histories.values()
        if run.parent is not None and run.parent[0] == first.path
    ]
    dataset = joined.sortby("step").assign_attrs(parted=parted)
    return Comparison(dataset, plots.diverging_histories(dataset))


def _opened(run: AnyRun) -> Run:
    return run if isinstance(run, Run) else open_run(run)


def _shapes(run: Run) -> dict[str, tuple[int, ...]]:
    shapes = jax.eval_shape(run.subject.model.init, jax.random.key(0))
    return {name: value.shape for name, value in dotted(shapes).items()}


def _labelled(forks: Sequence[AnyRun] | Mapping[str, AnyRun]) -> dict[str, Run]:
    if isinstance(forks, Mapping):
        return {label: _opened(run) for label, run in forks.items()}
    runs = [_opened(run) for run in forks]
    require(len(runs) > 0, "compare was given no fork")
    names = [run.path.name for run in runs]
    require(
        len(set(names)) == len(names),
        f"forks are labelled by their folders' names, and these are {names}; give a mapping",
    )
    return dict(zip(names, runs, strict=True))


def _readable(run: Run) -> list[str]:
    """Those of ``READ`` that the task has."""
    splits = run.evaluation().batches
    return [name for name in READ if name.split("_")[0] in splits]


def _history(parent: Run, run: Run, names: Sequence[Chosen], watch: MeasureWatch) -> xr.Dataset:
    """One history at its snapshots: (seed, step)."""
    read = run.measure(names, watch=watch)
    scalars = {
        name: read[name] for name in read.data_vars if set(read[name].dims) == {"seed", "step"}
    }
    losses = run.losses.reindex(step=run.steps)
    distance = xr.DataArray(
        _distance(parent, run), {"seed": list(run.seeds), "step": run.steps}, ("seed", "step")
    )
    return xr.Dataset({"loss": losses, **scalars, "weight_distance": distance})


def _distance(parent: Run, run: Run) -> Float[np.ndarray, "seed step"]:
    """||theta - theta_parent|| / ||theta_parent|| where both have a snapshot, else NaN."""
    far = np.full((len(run.seeds), len(run.steps)), np.nan)
    common = np.intersect1d(parent.steps, run.steps)
    for place, step in enumerate(run.steps):
        if step in common:
            ours, theirs = (jax.tree.leaves(one.stack([step])) for one in (run, parent))
            squares = sum(_squares(x - y) for x, y in zip(ours, theirs, strict=True))
            far[:, place] = np.sqrt(squares / sum(_squares(y) for y in theirs))
    return far


def _squares(x: Float[np.ndarray, "one seed ..."]) -> Float[np.ndarray, " seed"]:
    return np.square(x[0].astype(np.float64)).reshape(x.shape[1], -1).sum(axis=1)
