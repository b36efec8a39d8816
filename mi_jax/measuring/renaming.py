"""Contexts in which the elements of a task (residues, elements of a group) have other names.

The network, its inputs and its losses stay what they are. A measure whose formula asks which
residue a row of a table or a class stands for, such as a Fourier component, is told other names. So
its value says how much of the reading is due to the names.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.contracts import Context, Model, Roles

_ANSWERS = ("answer", "cyclic_answer", "right_answer")
"""Facts whose values are classes."""

Names = Int[Array, " element"]
"""A permutation: the new name of each element."""


def random_names(key: PRNGKey, count: int, draws: int) -> Int[np.ndarray, "draw element"]:
    """Permutations of elements, drawn at random.

    Where there are fewer other permutations than draws, each stands once; the identity is left out.

    Args:
        key: key of the random stream; draw i uses ``fold_in(key, i)``.
        count: number of elements.
        draws: number of permutations.

    Example:
        >>> random_names(jax.random.key(0), 3, 100).tolist()
        [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    """
    if math.factorial(min(count, 20)) - 1 <= draws:
        return np.array(list(itertools.permutations(range(count)))[1:], np.int32).reshape(-1, count)
    keys = jax.vmap(lambda draw: jax.random.fold_in(key, draw))(jnp.arange(draws))
    drawn = jax.vmap(lambda each: jax.random.permutation(each, count))(keys)
    return np.asarray(drawn, np.int32)


def renamed(context: Context, names: Names) -> Context:
    """The context of the same network with other names for its elements.

    Element x is called ``names[x]``: the rows of token tables and the columns of the maps to the
    classes stand at their new names, as do the outputs, and the answers of the ground truth and of
    the splits have their new names. So every loss is what it was. What the names mean (residues,
    characters, products) does not change.

    Args:
        context: of the reading.
        names: the new names, traced.
    """
    facts = {
        name: names[fact] if name in _ANSWERS else fact
        for name, fact in context.ground_truth.items()
    }
    batches = {
        split: batch._replace(targets=names[jnp.asarray(batch.targets)])
        for split, batch in context.batches.items()
    }
    model = _renamed_model(context.model, jnp.argsort(names))
    return dataclasses.replace(context, model=model, ground_truth=facts, batches=batches)


def _renamed_model(model: Model, elements: Names) -> Model:
    """The model whose tables and outputs stand in another order: first ``elements[0]``, ..."""

    def classes(outputs: Array) -> Array:
        count = len(elements)
        return jnp.concatenate([outputs[..., :count][..., elements], outputs[..., count:]], axis=-1)

    def apply(params: Params, inputs: Any, **options: Any) -> Array:
        return classes(model.apply(params, inputs, **options))

    return dataclasses.replace(
        model, apply=apply, roles=_renamed_roles(model.roles, elements, classes), routes={}
    )


def _renamed_roles(roles: Roles, elements: Names, classes: Callable[[Array], Array]) -> Roles:
    """The roles of such a model; ``classes`` puts the last axis into the new order."""

    def rows(table: Callable[[Params], Any]) -> Callable[[Params], Array]:
        return lambda params: jnp.asarray(table(params))[elements]

    def columns(table: Callable[[Params], Any] | None) -> Callable[[Params], Array] | None:
        return None if table is None else lambda params: classes(jnp.asarray(table(params)))

    changes: Mapping[str, Any] = {
        "embedding": tuple(map(rows, roles.embedding)),
        "neuron_inputs": tuple(map(rows, roles.neuron_inputs)),
        "output_map": columns(roles.output_map),
        "unembedding": columns(roles.unembedding),
    }
    if roles.neurons_added is not None:
        site, read = roles.neurons_added
        changes = {
            **changes,
            "neurons_added": (site, lambda params, value: classes(read(params, value))),
        }
    return dataclasses.replace(roles, **changes)
