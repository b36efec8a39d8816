"""What several measures need of the same forward pass, computed once a reading.

These are called at the top of a measure: inside a map or a gradient of the measure's own they would
    leak (see ``Shared``).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import MeasureError
from mi_jax.contracts import Batch, Context
from mi_jax.models.taps import capture

_F = TypeVar("_F", bound=Callable[..., Any])


def shared(compute: _F) -> _F:
    """Remembers ``compute(params, context, ...)`` for the time of one reading, where the context
    has a memory.
    """

    @functools.wraps(compute)
    def remembered(params: Params, context: Context, *options: Any, **named: Any) -> Any:
        if context.shared is None:
            return compute(params, context, *options, **named)
        key = (compute.__qualname__, options, tuple(sorted(named.items())))
        # Behind a barrier: computed once, not once in each of the fusions that use it.
        make = lambda: jax.lax.optimization_barrier(compute(params, context, *options, **named))  # noqa: E731
        return context.shared.once(key, params, make)

    return remembered  # pyright: ignore[reportReturnType]


class _Pass(NamedTuple):
    """One forward pass: outputs at the positions that are read, and what the roles' sites hold."""

    outputs: Float[Array, "batch position class"]
    sites: dict[str, Float[Array, "batch ..."]]


def _run(
    params: Params, context: Context, inputs: Shaped[Array | np.ndarray, "batch ..."]
) -> _Pass:
    return _Pass(
        *capture(context.model.apply, role_sites(context))(params, inputs, positions=context.read)
    )


@shared
def _table_pass(params: Params, context: Context) -> _Pass:
    """Over all pairs (a, b) in the order a p + b: no activation is put in order afterwards."""
    return _run(params, context, table_inputs(context))


@shared
def _split_pass(params: Params, context: Context, split: str) -> _Pass:
    return _run(params, context, batch(context, split).inputs)


def role_sites(context: Context) -> tuple[str, ...]:
    """The sites that measures listen to: neurons and what they add, attention; what isn't used is
    not computed.
    """
    roles = context.model.roles
    neurons = [
        site for site in (roles.neurons, roles.neurons_added and roles.neurons_added[0]) if site
    ]
    return (*neurons, *roles.attention, *roles.patterns)


def outputs(params: Params, context: Context, split: str) -> Float[Array, "batch position class"]:
    """The model's outputs for a split's inputs at the positions that are read."""
    if "table" in context.ground_truth:
        batch(context, split)
        return _table_pass(params, context).outputs[table_split(context, split)]
    return _split_pass(params, context, split).outputs


def split_neurons(
    params: Params, context: Context, split: str
) -> Float[Array, "batch position neuron"]:
    """Activations of the role ``neurons`` for a split's inputs at the positions that are read."""
    site = context.model.roles.neurons
    assert site is not None
    return _split_pass(params, context, split).sites[site]


def split_site(
    params: Params, context: Context, site: str, split: str
) -> Float[Array, "batch ..."]:
    """What one of ``role_sites`` holds for a split's inputs; from the last layer's queries on at
    the read positions only.
    """
    return _split_pass(params, context, split).sites[site]


def split_concept(context: Context, name: str, split: str) -> Shaped[Array, "batch ..."]:
    """The rows of a concept that belong to a split's examples (see ``Evaluation``)."""
    size = batch(context, split).targets.shape[0]
    first = sum(
        context.batches[other].targets.shape[0]
        for other in sorted(context.batches)
        if other < split
    )
    return context.ground_truth[name][first : first + size]


def batch(context: Context, split: str) -> Batch:
    """A split's batch. Raises MeasureError where the task has none of that name."""
    if split not in context.batches:
        raise MeasureError(f"the task has no split '{split}'; it has {sorted(context.batches)}")
    return context.batches[split]


def table_logits(params: Params, context: Context) -> Float[Array, "token token_other class"]:
    """Logits of all pairs (a, b) over the task's classes."""
    p = context.inputs.classes
    return _table_pass(params, context).outputs[:, 0, :p].reshape(p, p, p)


def table_neurons(params: Params, context: Context) -> Float[Array, "token token_other neuron"]:
    """Activations of the role ``neurons`` at the read position for all pairs (a, b)."""
    site = context.model.roles.neurons
    assert site is not None
    return table_site(params, context, site)[:, :, 0]


def table_site(
    params: Params, context: Context, site: str
) -> Float[Array, "token token_other ..."]:
    """What one of ``role_sites`` holds for all pairs (a, b); from the last layer's queries on at
    the read positions only.
    """
    value, p = _table_pass(params, context).sites[site], context.inputs.classes
    return value.reshape(p, p, *value.shape[1:])


def table_inputs(context: Context) -> Shaped[Array, "pair ..."]:
    """The inputs of all pairs in the order a p + b."""
    parts = [batch(context, split).inputs for split in sorted(context.batches)]
    return jnp.concatenate(parts)[context.ground_truth["table"].ravel()]


def table_answers(context: Context) -> Int[Array, "token token_other"]:
    """The right class of every pair."""
    return context.ground_truth["answer"]


def table_split(context: Context, split: str) -> Int[Array, " pair"]:
    """Flat indices a p + b of the pairs of a split, in the split's order."""
    splits = sorted(context.batches)
    sizes = [context.batches[name].targets.shape[0] for name in splits]
    first = sum(sizes[: splits.index(split)])
    pairs = jnp.argsort(context.ground_truth["table"].ravel())
    return jax.lax.dynamic_slice(pairs, (first,), (sizes[splits.index(split)],))
