"""Whether training only scales the weights up: naive loss minimisation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, batch_loss
from mi_jax.measures.evaluation import batch


def nlm_alignment() -> Measure:
    """cos(-grad L, theta) of the run's own training loss, over all parameters and by array; NaN
    where either is 0.

    1 where a step of gradient descent scales the weights and does nothing else, as after
    overfitting a homogeneous network without weight decay. It costs a gradient over the training
    examples, so that it is taken only when asked for: ``run.measure([nlm_alignment()])``.
    """
    names = ("nlm_alignment", "nlm_alignment_by_parameter")

    def function(params: Params, context: Context) -> dict[str, Array]:
        examples = batch(context, "train")

        def loss(params: Params) -> Scalar:
            outputs = context.model.apply(params, examples.inputs, positions=context.read)
            return batch_loss(context.loss, outputs, examples)

        pairs = list(
            zip(jax.tree.leaves(jax.grad(loss)(params)), jax.tree.leaves(params), strict=True)
        )
        dots = jnp.stack([-(g * w).sum() for g, w in pairs])
        # Each array is scaled by its largest entry before it is squared: gradients of 1e-20 are
        # met, and their squares are 0.
        sizes = jnp.stack([jnp.stack([_norm(g), _norm(w)]) for g, w in pairs])
        whole = _norm(sizes[:, 0]) * _norm(sizes[:, 1])
        return dict(
            zip(names, (dots.sum() / whole, dots / (sizes[:, 0] * sizes[:, 1])), strict=True)
        )

    dims = {names[0]: (), names[1]: ("parameter",)}
    return Measure(names[0], function, dims, source="arXiv 2501.04697")


def _norm(x: Float[Array, "..."]) -> Scalar:
    largest = jnp.abs(x).max()
    return largest * jnp.sqrt(jnp.square(x / jnp.where(largest > 0, largest, 1)).sum())
