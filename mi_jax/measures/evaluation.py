"""What several measures need of the same forward pass. Called freely: in one compiled program XLA computes it once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from mi_jax.arrays import Params
from mi_jax.contracts import Batch, Context
from mi_jax.errors import MeasureError
from mi_jax.models.taps import capture


def outputs(params: Params, context: Context, split: str) -> Float[Array, "batch position class"]:
    """The model's outputs for a split's inputs at the positions that are read."""
    return context.model.apply(params, batch(context, split).inputs, positions=context.read)


def batch(context: Context, split: str) -> Batch:
    """A split's batch. Raises MeasureError where the task has none of that name."""
    if split not in context.batches:
        raise MeasureError(f"the task has no split '{split}'; it has {sorted(context.batches)}")
    return context.batches[split]


def table_logits(params: Params, context: Context) -> Float[Array, "token token_other class"]:
    """Logits of all pairs (a, b) over the task's classes, from one pass over each split."""
    parts = [outputs(params, context, split)[:, 0, : context.inputs.classes] for split in sorted(context.batches)]
    return jnp.concatenate(parts)[context.concepts["table"]]


def table_neurons(params: Params, context: Context) -> Float[Array, "token token_other neuron"]:
    """Activations of the role ``neurons`` at the read position for all pairs (a, b)."""
    site = context.model.roles.neurons
    assert site is not None
    return table_sites(params, context, (site,), positions=context.read)[0][:, :, 0]


def table_sites(
    params: Params, context: Context, sites: tuple[str, ...], *, positions: tuple[int, ...] | None = None
) -> list[Float[Array, "token token_other ..."]]:
    """What is captured at some sites for all pairs (a, b), from one pass over each split."""
    listen = capture(context.model.apply, sites)
    seen = [listen(params, batch(context, split).inputs, positions=positions)[1] for split in sorted(context.batches)]
    return [jnp.concatenate([one[site] for one in seen])[context.concepts["table"]] for site in sites]


def table_inputs(context: Context) -> Shaped[Array, "pair ..."]:
    """The inputs of all pairs in the order a p + b."""
    parts = [batch(context, split).inputs for split in sorted(context.batches)]
    return jnp.concatenate(parts)[context.concepts["table"].ravel()]


def table_answers(context: Context) -> Int[Array, "token token_other"]:
    """The right class of every pair."""
    return context.concepts["answer"]


def table_split(context: Context, split: str) -> Int[Array, " pair"]:
    """Flat indices a p + b of the pairs of a split, in the split's order."""
    splits = sorted(context.batches)
    sizes = [context.batches[name].targets.shape[0] for name in splits]
    first = sum(sizes[: splits.index(split)])
    pairs = jnp.argsort(context.concepts["table"].ravel())
    return jax.lax.dynamic_slice(pairs, (first,), (sizes[splits.index(split)],))
