"""Examples that the loss is averaged over: by index, by mask, or by the task's labels (data-refined
coefficients, arXiv 2410.02984).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int, PyTree

from mi_jax.basics.errors import MeasureError, nearest, require
from mi_jax.contracts import Context
from mi_jax.measures.evaluation import batch

Examples = Sequence[int] | Int[np.ndarray, " chosen"] | Bool[np.ndarray, " example"]
"""Indices along the leading axis, each at most once, or a boolean mask of it."""

Where = tuple[str, int | Sequence[int]]
"""Name of a concept, and the class (or classes) that an example must belong to."""


def chosen_rows(examples: Examples, count: int) -> Int[np.ndarray, " chosen"]:
    """Indices of the chosen examples, ascending.

    Args:
        examples: indices or a boolean mask.
        count: number of examples to choose from.

    Raises:
        ConfigError: if a mask has another length, an index is out of range or repeated, or nothing
            is chosen.
    """
    given = np.asarray(examples)
    if given.dtype == bool:
        require(
            given.shape == (count,),
            f"The mask examples must have the shape ({count},), one entry per example; it has"
            f" {given.shape}.",
        )
        given = np.flatnonzero(given)
    require(
        given.size > 0,
        f"examples is empty, or a mask without True. Choose at least one of {count} examples.",
    )
    require(
        np.issubdtype(given.dtype, np.integer),
        f"examples must be whole numbers or a boolean mask; it holds {given.dtype}.",
    )
    outside = given[(given < 0) | (given >= count)]
    require(
        outside.size == 0,
        f"examples must be indices from 0 to {count - 1}; it holds {outside[:5].tolist()}.",
    )
    rows = np.unique(given)
    require(
        len(rows) == given.size,
        f"examples repeats {given.size - len(rows)} of its indices. Give each once.",
    )
    return rows.astype(np.int32)


def take_examples(data: PyTree, examples: Examples) -> PyTree:
    """The chosen examples of a pytree of arrays whose leading axis is the example."""
    rows = chosen_rows(examples, jax.tree.leaves(data)[0].shape[0])
    return jax.tree.map(lambda x: x[rows], data)


def split_rows(
    context: Context, split: str, examples: Examples | None, where: Where | None
) -> Int[np.ndarray, " chosen"]:
    """Indices in a split of the examples chosen by index and by label, ascending.

    Args:
        context: context of the measure, with the task's batches and labels.
        split: name of the split.
        examples: indices or a boolean mask; None: all.
        where: a concept and the class (or classes) of it; None: all.

    Raises:
        MeasureError: if the split is unknown, or the task has no labels of the concept, or those
            labels differ by position.
        ConfigError: if nothing is chosen.
    """
    count = len(batch(context, split).targets)
    rows = np.arange(count, dtype=np.int32) if examples is None else chosen_rows(examples, count)
    if where is None:
        return rows
    values, classes = _values(context, split, where[0]), np.atleast_1d(np.asarray(where[1]))
    matching = rows[np.isin(values[rows], classes)]
    present = sorted(set(values[rows].tolist()))
    require(
        matching.size > 0,
        f"where={where}: no example of '{split}' is of that class. '{where[0]}' has {present}.",
    )
    return matching


def _values(context: Context, split: str, concept: str) -> Any:
    """Class of each example of a split under a concept [example]."""
    if concept not in context.labels:
        raise MeasureError(
            f"The task has no labels of a concept '{concept}'; {nearest(concept, context.labels)}"
        )
    values = np.asarray(context.labels[concept].values)
    if values.ndim != 1:
        raise MeasureError(
            f"'{concept}' differs by position, so it cannot choose whole examples. Name a concept"
            " with one label per example."
        )
    # Labels cover all splits, one after another in sorted order of their names.
    first = sum(
        len(context.batches[name].targets) for name in sorted(context.batches) if name < split
    )
    return values[first : first + len(context.batches[split].targets)]
