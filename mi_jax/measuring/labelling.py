"""Labelled datasets of readings, with coordinates from the task, the model and the measure."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from mi_jax.basics.pytrees import dotted
from mi_jax.basics.streams import stream
from mi_jax.contracts import Measure, Task
from mi_jax.contracts.measure import Subject


class TaskNames(NamedTuple):
    """Names that a task gives to its facts and data.

    Attributes:
        ground_truth: exact facts of the task.
        splits: parts of the data.
        labels: concepts with labels for probes, sorted.
    """

    ground_truth: frozenset[str]
    splits: frozenset[str]
    labels: tuple[str, ...]


@lru_cache(maxsize=8)
def task_names(task: Task) -> TaskNames:
    """Names of a task's ground truth, splits and labels. Cached, because data are made for them."""
    evaluation = task.evaluation(task.data(0), stream(0, "measure"))
    return TaskNames(
        frozenset(evaluation.ground_truth),
        frozenset(evaluation.batches),
        tuple(sorted(task.labels(evaluation))),
    )


def coordinate(dim: str, measure: Measure, subject: Subject) -> np.ndarray | None:
    """Coordinate of a dim: that of the measure, of the task, or of the package.

    Args:
        dim: name of the dim.
        measure: the measure whose values have the dim.
        subject: the model and task that are measured.

    Returns:
        Labels along the dim; None if its entries are only counted from 0.
    """
    labels = measure.coordinates.get(dim, subject.task.dim_names.get(dim))
    if callable(labels):
        labels = labels(subject.model, task_names(subject.task).labels)
    if labels is not None:
        return np.array(labels)
    if dim == "frequency":
        return np.arange(1, subject.task.inputs.classes // 2 + 1)
    if dim == "parameter":
        return np.array(list(dotted(jax.eval_shape(subject.model.init, jax.random.key(0)))))
    return None


def labelled(
    values: Mapping[str, np.ndarray],
    measure: Measure,
    subject: Subject,
    seeds: Sequence[int],
    steps: np.ndarray,
) -> xr.Dataset:
    """Dataset of a measure's values, with dims and coordinates.

    Args:
        values: arrays [seed step ...] by variable.
        measure: the measure that they were read by.
        subject: the model, task and loss that were measured.
        seeds: labels of the seeds.
        steps: steps of the snapshots.
    """
    coords: dict[str, Any] = {"seed": np.asarray(seeds), "step": np.asarray(steps)}
    variables: dict[str, Any] = {}
    units = subject.loss.units if measure.units == "loss" else measure.units
    attrs = {"units": units} if units else {}
    for name, dims in measure.variables.items():
        variables[name] = (("seed", "step", *dims), values[name], attrs)
        for dim in dims:
            labels = coordinate(dim, measure, subject)
            if labels is not None:
                coords[dim] = labels
    return xr.Dataset(variables, coords=coords)
