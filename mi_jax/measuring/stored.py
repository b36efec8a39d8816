"""Readings of a trajectory, stored in the run with their provenance, and reused until something
that they depend on changes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import RunError
from mi_jax.contracts import Measure, Reference
from mi_jax.contracts.measure import Subject
from mi_jax.measuring.files import cached, content_key, load_dataset, provenance_of, write_dataset
from mi_jax.measuring.labelling import labelled
from mi_jax.measuring.merging import joined
from mi_jax.measuring.program import Reader, Watch, make_context, read_trajectory
from mi_jax.training.trajectory import Trajectory


def measure_trajectory(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    provenance: Mapping[str, Any],
    watch: Watch = lambda done, total: None,
) -> xr.Dataset:
    """Reads every stored snapshot, and writes one netCDF file per measure into the run.

    A measure whose file was written under the same key (``files.content_key``) is not read again.

    Args:
        trajectory: the stored snapshots.
        subject: the model, task and loss that are measured.
        measures: the measures to read.
        provenance: stored with each result: the experiment, its hash, the machine.
        watch: called after each segment.

    Returns:
        Variables of all measures, dims (seed, step, ...).

    Raises:
        RunError: if the run has no snapshot yet, or a file cannot be written.
        MeasureError: if the readings cannot be merged.
    """
    if not len(trajectory.steps):
        raise RunError(f"{trajectory.path} holds no snapshot yet. Train it first.")
    keys: dict[str, str | None] = {}
    datasets: dict[str, xr.Dataset] = {}
    for measure in measures:
        keys[measure.name] = content_key(trajectory, measure, provenance)
        dataset = cached(_file(trajectory, measure.name), keys[measure.name])
        if dataset is not None:
            datasets[measure.name] = dataset
    todo = [measure for measure in measures if measure.name not in datasets]
    fresh = read_trajectory(trajectory, subject, todo, watch) if todo else {}
    for measure in todo:
        values, prepared = fresh[measure.name]
        dataset = labelled(
            values, measure, subject, trajectory.seeds, trajectory.steps
        ).assign_attrs(
            provenance=provenance_of(measure, provenance, prepared), key=keys[measure.name] or ""
        )
        datasets[measure.name] = dataset
        write_dataset(_file(trajectory, measure.name), dataset)
    return joined([datasets[measure.name] for measure in measures], provenance)


def measure_weights(
    params: Params, subject: Subject, measures: Sequence[Measure], provenance: Mapping[str, Any]
) -> xr.Dataset:
    """Reads one set of weights, which serves as its own previous and final reference.

    Args:
        params: the weights.
        subject: the model, task and loss that are measured.
        measures: the measures to read.
        provenance: stored with each result: the experiment, its hash, the machine.

    Returns:
        Variables of all measures, dims (seed, step, ...), with one seed and one step, both
        labelled 0.
    """
    reader = Reader(measures, subject.precision)
    context = make_context(subject, 0, Reference(final=params), measures)
    stack = jax.tree.map(lambda x: np.asarray(x)[None], params)
    values = reader.read(stack, stack, context)
    datasets: list[xr.Dataset] = []
    for measure in measures:
        own = {name: values[name][None] for name in measure.variables}
        dataset = labelled(own, measure, subject, (0,), np.array([0]))
        source = provenance_of(measure, provenance, {0: context.prepared})
        datasets.append(dataset.assign_attrs(provenance=source))
    return joined(datasets, provenance)


def read_steps(
    trajectory: Trajectory, subject: Subject, measures: Sequence[Measure], steps: Sequence[int]
) -> xr.Dataset:
    """Reads chosen snapshots; nothing is written or reused.

    Args:
        trajectory: the stored snapshots.
        subject: the model, task and loss that are measured.
        measures: the measures to read.
        steps: steps of the snapshots, in the order of the result.

    Returns:
        Variables of all measures, dims (seed, step, ...).
    """
    # "previous" is the stored snapshot before, so that all snapshots must be read.
    whole = any("previous" in measure.uses for measure in measures)
    chosen = trajectory.steps.tolist() if whole else sorted({int(step) for step in steps})
    read = read_trajectory(trajectory, subject, measures, chosen=chosen)
    datasets = [
        labelled(read[measure.name].values, measure, subject, trajectory.seeds, np.asarray(chosen))
        for measure in measures
    ]
    return joined(datasets, trajectory.record).sel(step=[int(step) for step in steps])


def stored_measures(trajectory: Trajectory) -> xr.Dataset:
    """Merged readings that are stored in a run, without those of other steps than the run has."""
    datasets = [load_dataset(file) for file in sorted((trajectory.path / "measures").glob("*.nc"))]
    return joined(
        [dataset for dataset in datasets if np.array_equal(dataset["step"], trajectory.steps)],
        trajectory.record,
    )


def _file(trajectory: Trajectory, name: str) -> Path:
    """File of a measure's readings."""
    return trajectory.path / "measures" / f"{name}.nc"
