"""What the model does where a task reads several answers of one input: loss by position, and inputs
of which all are right.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, mean_loss
from mi_jax.measures.behaviour import class_outputs
from mi_jax.measures.evaluation import batch, outputs


def loss_by_position(split: str = "test") -> Measure:
    """The run's own loss at each position of the input, mean over a split; NaN where no answer is
    read.
    """

    def function(params: Params, context: Context) -> Float[Array, " position"]:
        examples = batch(context, split)
        losses = context.loss(outputs(params, context, split), examples.targets)
        weights = jnp.asarray(examples.weights)
        means = jnp.stack(
            [mean_loss(losses[:, i, None], weights[:, i, None]) for i in range(len(context.read))]
        )
        return jnp.full(context.inputs.positions, jnp.nan).at[np.array(context.read)].set(means)

    name = f"{split}_loss_by_position"
    return Measure(
        name, function, ("position",), ground_truth=("places",), splits=(split,), units="loss"
    )


def exact_match(split: str = "test") -> Measure:
    """The share of a split's inputs all of whose answers are right; NaN where an output is not
    finite.

    Each answer is read with the right ones before it in the input, where a task puts them there.
    What has no weight isn't counted.
    """

    def function(params: Params, context: Context) -> Scalar:
        examples, out = batch(context, split), class_outputs(outputs(params, context, split))
        wrong = (out.argmax(axis=-1) != examples.targets) & (jnp.asarray(examples.weights) > 0)
        right = (~wrong.any(axis=-1)).astype(jnp.float32)
        return jnp.where(jnp.isfinite(out).all(axis=(1, 2)), right, jnp.nan).mean()

    return Measure(f"{split}_exact_match", function, ground_truth=("places",), splits=(split,))
