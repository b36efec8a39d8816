"""Names for a reading's dims: coordinates from the task, the model and the measure."""

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
    """The names of a task's concepts, splits, and labels for probes."""

    ground_truth: frozenset[str]
    splits: frozenset[str]
    labels: tuple[str, ...]


@lru_cache(maxsize=8)
def task_names(task: Task) -> TaskNames:
    """The names of a task's concepts, splits and labels."""
    evaluation = task.evaluation(task.data(0), stream(0, "measure"))
    return TaskNames(
        frozenset(evaluation.ground_truth),
        frozenset(evaluation.batches),
        tuple(sorted(task.labels(evaluation))),
    )


def coordinate(dim: str, one: Measure, subject: Subject) -> np.ndarray | None:
    """The coordinate of a labelled dim; None where places are just counted from 0."""
    given = one.coordinates.get(dim, subject.task.dim_names.get(dim))
    if given is not None:
        return np.array(
            given(subject.model, task_names(subject.task).labels) if callable(given) else given
        )
    if dim == "frequency":
        return np.arange(1, subject.task.inputs.classes // 2 + 1)
    if dim == "parameter":
        return np.array(list(dotted(jax.eval_shape(subject.model.init, jax.random.key(0)))))
    return None


def labelled(
    values: Mapping[str, np.ndarray],
    one: Measure,
    subject: Subject,
    seeds: Sequence[int],
    steps: np.ndarray,
) -> xr.Dataset:
    """A measure's values as a dataset with its dims and coordinates."""
    coords: dict[str, Any] = {"seed": np.asarray(seeds), "step": np.asarray(steps)}
    variables: dict[str, Any] = {}
    units = subject.loss.units if one.units == "loss" else one.units
    for name, dims in one.variables.items():
        variables[name] = (("seed", "step", *dims), values[name], {"units": units} if units else {})
        coords |= {
            dim: label for dim in dims if (label := coordinate(dim, one, subject)) is not None
        }
    return xr.Dataset(variables, coords=coords)
