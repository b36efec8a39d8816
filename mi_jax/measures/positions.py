"""Behaviour on tasks with several answers per input: loss by position, and fully right inputs."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, mean_loss
from mi_jax.measures.behaviour import class_outputs
from mi_jax.measures.evaluation import batch, outputs


def loss_by_position(split: str = "test") -> Measure:
    """Loss of the run at each position of the input, averaged over a split.

    A position with a high loss holds an answer that the model has not learnt yet. Needs a task with
    several answers per input (the fact ``places``).

    Args:
        split: name of a split of the task.

    Returns:
        A Measure with ``{split}_loss_by_position`` of dims (position), in the units of the run's
        loss; NaN where no answer is read.
    """

    def _loss_by_position(params: Params, context: Context) -> Float[Array, " position"]:
        examples = batch(context, split)
        losses = context.loss(outputs(params, context, split), examples.targets)
        weights = jnp.asarray(examples.weights)
        means = jnp.stack(
            [mean_loss(losses[:, i, None], weights[:, i, None]) for i in range(len(context.read))]
        )
        return jnp.full(context.inputs.positions, jnp.nan).at[np.array(context.read)].set(means)

    return Measure(
        f"{split}_loss_by_position",
        _loss_by_position,
        ("position",),
        ground_truth=("places",),
        splits=(split,),
        units="loss",
    )


def exact_match(split: str = "test") -> Measure:
    """Share of a split's inputs whose answers are all right.

    Each answer is read with the right earlier answers in the input, if the task puts them there
    (teacher forcing). Answers without weight are not counted. 1 means that the model makes no error
    on any input. Needs a task with several answers per input (the fact ``places``).

    Args:
        split: name of a split of the task.

    Returns:
        A Measure with the scalar ``{split}_exact_match``, a share from 0 to 1; NaN if an output
        is not finite.
    """

    def _exact_match(params: Params, context: Context) -> Scalar:
        examples, out = batch(context, split), class_outputs(outputs(params, context, split))
        wrong = (out.argmax(axis=-1) != examples.targets) & (jnp.asarray(examples.weights) > 0)
        right = (~wrong.any(axis=-1)).astype(jnp.float32)
        return jnp.where(jnp.isfinite(out).all(axis=(1, 2)), right, jnp.nan).mean()

    return Measure(f"{split}_exact_match", _exact_match, ground_truth=("places",), splits=(split,))
