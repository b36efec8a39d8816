"""What the model does: its loss and accuracy by split, as trained."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.arrays import Params, Scalar
from mi_jax.contracts import Batch, Context, Measure, mean_loss
from mi_jax.measures.evaluation import batch, outputs


def split_loss(split: str) -> Measure:
    """The run's own loss over all of the model's outputs, mean over a split, in its units (nats for cross-entropy)."""

    def function(params: Params, context: Context) -> Scalar:
        examples = batch(context, split)
        return mean_loss(context.loss(outputs(params, context, split), examples.targets), examples.weights)

    return Measure(f"{split}_loss", function, units="nats")


def accuracy(out: Float[Array, "batch position class"], examples: Batch) -> Scalar:
    """The share of answers whose largest output is the right one, by the batch's weights; NaN where an output is not finite."""
    right = (out.argmax(axis=-1) == examples.targets).astype(jnp.float32)
    return mean_loss(jnp.where(jnp.isfinite(out).all(axis=-1), right, jnp.nan), examples.weights)


def split_accuracy(split: str) -> Measure:
    """``accuracy`` on a split."""

    def function(params: Params, context: Context) -> Scalar:
        return accuracy(outputs(params, context, split), batch(context, split))

    return Measure(f"{split}_accuracy", function)
