"""Which examples the loss is of: places, a mask, or what a task knows of them (data-refined
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
"""Places along the leading axis, each at most once, or a mask of it."""

Where = tuple[str, int | Sequence[int]]
"""A concept's name and the class, or classes, that an example must have under it."""


def rows_of(examples: Examples, count: int) -> Int[np.ndarray, " chosen"]:
    """The places that are meant, of ``count`` examples, rising.

    Raises:
        ConfigError: for a mask of another length, places that there aren't or are there twice, or
            none at all.
    """
    given = np.asarray(examples)
    if given.dtype == bool:
        require(
            given.shape == (count,),
            f"examples is a mask of the shape {given.shape}; there are {count} examples",
        )
        given = np.flatnonzero(given)
    require(
        given.size > 0,
        "examples leaves nothing that the loss could be of; it must choose at least one",
    )
    require(
        np.issubdtype(given.dtype, np.integer),
        f"examples holds {given.dtype}; places are whole numbers",
    )
    outside = given[(given < 0) | (given >= count)]
    require(
        outside.size == 0,
        f"examples asks for {outside[:5].tolist()}; there are {count} examples, from 0",
    )
    rows = np.unique(given)
    require(
        len(rows) == given.size,
        f"examples holds {given.size - len(rows)} places twice; each may be there once",
    )
    return rows.astype(np.int32)


def taken(data: PyTree, examples: Examples) -> PyTree:
    """The chosen examples of arrays with a leading axis of examples."""
    rows = rows_of(examples, jax.tree.leaves(data)[0].shape[0])
    return jax.tree.map(lambda x: x[rows], data)


def split_rows(
    context: Context, split: str, examples: Examples | None, where: Where | None
) -> Int[np.ndarray, " chosen"]:
    """The places in a split of the examples that are chosen, by place and by what is known of them.

    Raises:
        MeasureError: for an unknown split, a concept of which the task has no labels, or one that
            differs by position.
        ConfigError: where nothing is left.
    """
    count = len(batch(context, split).targets)
    rows = np.arange(count, dtype=np.int32) if examples is None else rows_of(examples, count)
    if where is None:
        return rows
    values, classes = _values(context, split, where[0]), np.atleast_1d(np.asarray(where[1]))
    left = rows[np.isin(values[rows], classes)]
    held = sorted(set(values[rows].tolist()))
    require(
        left.size > 0,
        f"where={where}: no example of '{split}' is of that class; '{where[0]}' has {held}",
    )
    return left


def _values(context: Context, split: str, concept: str) -> Any:
    if concept not in context.labels:
        raise MeasureError(
            f"the task has no labels of a concept '{concept}'; {nearest(concept, context.labels)}"
        )
    values = np.asarray(context.labels[concept].values)
    if values.ndim != 1:
        raise MeasureError(f"'{concept}' differs by position, so that it chooses no whole examples")
    # Labels are in the order of all splits.
    first = sum(
        len(context.batches[name].targets) for name in sorted(context.batches) if name < split
    )
    return values[first : first + len(context.batches[split].targets)]
