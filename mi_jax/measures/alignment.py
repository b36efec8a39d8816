"""Naive loss minimisation: whether training only scales up the weights (arXiv 2501.04697)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, batch_loss
from mi_jax.measures.evaluation import batch


def nlm_alignment() -> Measure:
    """Cosine of the negative gradient of the training loss with the parameters.

    cos(-grad L, theta) = -<grad L, theta> / (||grad L|| ||theta||), L the run's own loss over the
    split "train". A value of 1 means that a step of gradient descent scales the weights and does
    nothing else, as after overfitting a homogeneous network without weight decay; 0 means that the
    step leaves the norm of the weights unchanged to first order.

    The measure costs one gradient over the training examples. It is therefore not in ``MEASURES``:
    ask for it with ``run.measure([nlm_alignment()])``.

    Returns:
        A Measure with the scalar ``nlm_alignment`` over all parameters, and
        ``nlm_alignment_by_parameter`` of dims (parameter) for each array. Both lie in [-1, 1]; NaN
        if the gradient or the array is 0.
    """
    names = ("nlm_alignment", "nlm_alignment_by_parameter")

    def _nlm_alignment(params: Params, context: Context) -> dict[str, Array]:
        examples = batch(context, "train")

        def loss(params: Params) -> Scalar:
            outputs = context.model.apply(params, examples.inputs, positions=context.read)
            return batch_loss(context.loss, outputs, examples)

        pairs = list(
            zip(jax.tree.leaves(jax.grad(loss)(params)), jax.tree.leaves(params), strict=True)
        )
        dots = jnp.stack([-(g * w).sum() for g, w in pairs])
        sizes = jnp.stack([jnp.stack([_norm(g), _norm(w)]) for g, w in pairs])
        whole = _norm(sizes[:, 0]) * _norm(sizes[:, 1])
        values = (dots.sum() / whole, dots / (sizes[:, 0] * sizes[:, 1]))
        return dict(zip(names, values, strict=True))

    dims = {names[0]: (), names[1]: ("parameter",)}
    return Measure(names[0], _nlm_alignment, dims, splits=("train",), source="arXiv 2501.04697")


def _norm(x: Float[Array, "..."]) -> Scalar:
    """Euclidean norm of an array."""
    # Gradients near 1e-20 occur, and their squares underflow to 0 in float32: the array is divided
    # by its largest entry before it is squared.
    largest = jnp.abs(x).max()
    return largest * jnp.sqrt(jnp.square(x / jnp.where(largest > 0, largest, 1)).sum())
