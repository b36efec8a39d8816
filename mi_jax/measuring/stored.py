"""Readings of a trajectory: stored in the run with their provenance, reused while nothing they
depend on has changed.
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
    """Reads every stored snapshot; writes one netCDF a measure into the run, and reuses those whose
    content is the same.

    Args:
        provenance: what to store with each result: the experiment, its hash, the machine.

    Returns:
        The measures' variables, dims (seed, step, ...).
    """
    if not len(trajectory.steps):
        raise RunError(f"{trajectory.path} holds no snapshot yet; train it first")
    keys = {one.name: content_key(trajectory, one, provenance) for one in measures}
    found = {one.name: cached(_file(trajectory, one.name), keys[one.name]) for one in measures}
    held = {name: dataset for name, dataset in found.items() if dataset is not None}
    todo = [one for one in measures if one.name not in held]
    fresh = read_trajectory(trajectory, subject, todo, watch) if todo else {}
    for one in todo:
        dataset = labelled(fresh[one.name].values, one, subject, trajectory.seeds, trajectory.steps)
        prepared = fresh[one.name].prepared
        held[one.name] = dataset.assign_attrs(
            provenance=provenance_of(one, provenance, prepared), key=keys[one.name] or ""
        )
        write_dataset(_file(trajectory, one.name), held[one.name])
    return joined([held[one.name] for one in measures], provenance)


def measure_weights(
    params: Params, subject: Subject, measures: Sequence[Measure], provenance: Mapping[str, Any]
) -> xr.Dataset:
    """Reads one set of weights, which is its own final reference: dims (seed, step, ...) of length
    1, labelled 0.
    """
    reader = Reader(measures, subject.precision)
    context = make_context(subject, 0, Reference(final=params), measures)
    stack = jax.tree.map(lambda x: np.asarray(x)[None], params)
    values = reader.read(stack, stack, context)
    datasets = [
        labelled(
            {name: values[name][None] for name in one.variables}, one, subject, (0,), np.array([0])
        ).assign_attrs(provenance=provenance_of(one, provenance, {0: context.prepared}))
        for one in measures
    ]
    return joined(datasets, provenance)


def read_steps(
    trajectory: Trajectory, subject: Subject, measures: Sequence[Measure], steps: Sequence[int]
) -> xr.Dataset:
    """Readings at chosen snapshots, dims (seed, step, ...); nothing is written or reused."""
    # What looks at the snapshot before needs them all.
    whole = any("previous" in one.uses for one in measures)
    chosen = trajectory.steps.tolist() if whole else sorted({int(step) for step in steps})
    read = read_trajectory(trajectory, subject, measures, chosen=chosen)
    datasets = [
        labelled(read[one.name].values, one, subject, trajectory.seeds, np.asarray(chosen))
        for one in measures
    ]
    return joined(datasets, trajectory.record).sel(step=[int(step) for step in steps])


def stored_measures(trajectory: Trajectory) -> xr.Dataset:
    """All readings that the run holds of its present snapshots, merged; those of fewer snapshots
    are left out.
    """
    datasets = [load_dataset(file) for file in sorted((trajectory.path / "measures").glob("*.nc"))]
    return joined(
        [one for one in datasets if np.array_equal(one["step"], trajectory.steps)],
        trajectory.record,
    )


def _file(trajectory: Trajectory, name: str) -> Path:
    return trajectory.path / "measures" / f"{name}.nc"
