"""Quantities that several measures share: forward passes, splits, and the table of all pairs.

A pair (a, b) has the flat index a n + b, where n is the number of elements (the task's classes).

Call these functions at the top of a measure. Inside a transformation of the measure's own, such as
a map or a gradient, their remembered tracers would leak (see ``contracts.Shared``).
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
    """Decorator that computes ``compute(params, context, ...)`` once per reading.

    Without ``context.shared`` every call computes the value again.
    """

    @functools.wraps(compute)
    def remembered(params: Params, context: Context, *options: Any, **keywords: Any) -> Any:
        if context.shared is None:
            return compute(params, context, *options, **keywords)
        key = (compute.__qualname__, options, tuple(sorted(keywords.items())))

        # The barrier keeps XLA from copying the computation into every fusion that uses its value.
        def make() -> Any:
            return jax.lax.optimization_barrier(compute(params, context, *options, **keywords))

        return context.shared.once(key, params, make)

    return remembered  # pyright: ignore[reportReturnType]


# --- Splits


def batch(context: Context, split: str) -> Batch:
    """Fixed evaluation batch of a split.

    Raises:
        MeasureError: if the task has no split of that name.
    """
    if split not in context.batches:
        raise MeasureError(
            f"The task has no split '{split}'. Its splits are {sorted(context.batches)}."
        )
    return context.batches[split]


def all_inputs(context: Context) -> Shaped[Array, "example ..."]:
    """Inputs of all examples, one split after another in sorted order of their names."""
    return jnp.concatenate(
        [jnp.asarray(batch(context, split).inputs) for split in sorted(context.batches)]
    )


def split_range(context: Context, split: str) -> tuple[int, int]:
    """Place of a split among all examples (in the order of ``all_inputs``).

    Returns:
        The index of the split's first example, and the number of its examples.

    Raises:
        MeasureError: if the task has no split of that name.
    """
    size = batch(context, split).targets.shape[0]
    earlier = (name for name in sorted(context.batches) if name < split)
    return sum(context.batches[name].targets.shape[0] for name in earlier), size


def split_truth(context: Context, name: str, split: str) -> Shaped[Array, "batch ..."]:
    """The part of an exact fact that belongs to a split's examples.

    Args:
        context: of the reading.
        name: fact in ``context.ground_truth`` whose first axis is the example.
        split: of the task.
    """
    first, size = split_range(context, split)
    return context.ground_truth[name][first : first + size]


# --- Forward passes


class _Pass(NamedTuple):
    """One forward pass: outputs at the read positions, and values at the sites of the roles."""

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
    """Forward pass over all pairs (a, b) in the order of the flat index a n + b.

    No activation is then reordered afterwards.
    """
    return _run(params, context, table_inputs(context))


@shared
def _split_pass(params: Params, context: Context, split: str) -> _Pass:
    return _run(params, context, batch(context, split).inputs)


def role_sites(context: Context) -> tuple[str, ...]:
    """Sites that measures capture: the neurons and their output, attention scores and patterns.

    XLA removes the computation of captured values that no measure uses.
    """
    roles = context.model.roles
    neurons = [
        site for site in (roles.neurons, roles.neurons_added and roles.neurons_added[0]) if site
    ]
    return (*neurons, *roles.attention, *roles.patterns)


def outputs(params: Params, context: Context, split: str) -> Float[Array, "batch position class"]:
    """Outputs of the model for the inputs of a split, at the read positions."""
    if "table" in context.ground_truth:
        return _table_pass(params, context).outputs[table_split(context, split)]
    return _split_pass(params, context, split).outputs


def split_neurons(
    params: Params, context: Context, split: str
) -> Float[Array, "batch position neuron"]:
    """Activations of the role ``neurons`` for the inputs of a split, at the read positions."""
    site = context.model.roles.neurons
    assert site is not None
    return _split_pass(params, context, split).sites[site]


def split_site(
    params: Params, context: Context, site: str, split: str
) -> Float[Array, "batch ..."]:
    """Values at one of ``role_sites`` for the inputs of a split.

    From the queries of the last layer on, a model computes the read positions only.
    """
    return _split_pass(params, context, split).sites[site]


def right_and_wrong(
    logits: Float[Array, "*b class"], answers: Int[Array | np.ndarray, "*b"]
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Compares the right class with the others.

    Returns:
        The logit of the right class, and the largest logit of the other classes.
    """
    right = jax.nn.one_hot(answers, logits.shape[-1], dtype=bool)
    return (
        jnp.where(right, logits, 0).sum(axis=-1),
        jnp.where(right, -jnp.inf, logits).max(axis=-1),
    )


# --- The table of all pairs


def table_logits(params: Params, context: Context) -> Float[Array, "token token_other class"]:
    """Logits of all pairs (a, b) over the classes of the task."""
    p = context.inputs.classes
    return _table_pass(params, context).outputs[:, 0, :p].reshape(p, p, p)


def pair_logits(params: Params, context: Context) -> Float[Array, "pair class"]:
    """``table_logits`` with one row per pair, in the order of the flat index a n + b."""
    return table_logits(params, context).reshape(-1, context.inputs.classes)


def pair_losses(
    logits: Float[Array, "pair class"],
    context: Context,
    answers: Int[Array, "token token_other"] | None = None,
) -> Float[Array, " pair"]:
    """Loss of the run for logits of all pairs, in the order of the flat index a n + b.

    Args:
        logits: one row per pair.
        context: of the reading.
        answers: class of every pair that counts as right: ``table_labels`` for readings of one
            split; None for the right answers.
    """
    answers = table_answers(context) if answers is None else answers
    return context.loss(logits[:, None, :], answers.reshape(-1, 1))[:, 0]


def table_neurons(params: Params, context: Context) -> Float[Array, "token token_other neuron"]:
    """Activations of the role ``neurons`` at the read position, for all pairs (a, b)."""
    site = context.model.roles.neurons
    assert site is not None
    return table_site(params, context, site)[:, :, 0]


def table_site(
    params: Params, context: Context, site: str
) -> Float[Array, "token token_other ..."]:
    """Values at one of ``role_sites`` for all pairs (a, b).

    From the queries of the last layer on, a model computes the read positions only.
    """
    value, p = _table_pass(params, context).sites[site], context.inputs.classes
    return value.reshape(p, p, *value.shape[1:])


def table_inputs(context: Context) -> Shaped[Array, "pair ..."]:
    """Inputs of all pairs (a, b), in the order of the flat index a n + b."""
    return all_inputs(context)[context.ground_truth["table"].ravel()]


def table_answers(context: Context) -> Int[Array, "token token_other"]:
    """Right class of every pair."""
    return context.ground_truth["answer"]


def table_labels(context: Context) -> Int[Array, "token token_other"]:
    """Class of every pair in the split that holds the pair.

    On training pairs with label noise it is the label that is trained on; elsewhere it is the
    right answer.
    """
    labels = [jnp.asarray(context.batches[split].targets) for split in sorted(context.batches)]
    return jnp.concatenate(labels)[:, 0][context.ground_truth["table"]]


def table_split(context: Context, split: str) -> Int[Array, " pair"]:
    """Flat indices a n + b of the pairs (a, b) of a split, in the order of the split.

    n is the number of elements (the task's classes).

    Raises:
        MeasureError: if the task has no split of that name.
    """
    first, size = split_range(context, split)
    pairs = jnp.argsort(context.ground_truth["table"].ravel())
    return jax.lax.dynamic_slice(pairs, (first,), (size,))
