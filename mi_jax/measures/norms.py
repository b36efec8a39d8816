"""Sizes of the weights."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure

_SOURCE = "arXiv 2301.05217"


def sum_squared_weights() -> Measure:
    """Sum of theta^2 over all parameters, biases included (arXiv 2301.05217).

    Under weight decay, a falling sum marks the cleanup of memorised solutions.

    Returns:
        A Measure with the scalar ``sum_squared_weights``.
    """

    def _sum_squared_weights(params: Params, context: Context) -> Scalar:
        return _squares(params).sum()

    return Measure("sum_squared_weights", _sum_squared_weights, source=_SOURCE)


def sum_squared_weights_by_parameter() -> Measure:
    """Sum of theta^2 of each array, in the order of the parameters' dotted names.

    The array with the largest value holds most of the squared norm (arXiv 2301.05217).

    Returns:
        A Measure with ``sum_squared_weights_by_parameter`` of dims (parameter).
    """

    def _sum_squared_weights_by_parameter(
        params: Params, context: Context
    ) -> Float[Array, " parameter"]:
        return _squares(params)

    return Measure(
        "sum_squared_weights_by_parameter",
        _sum_squared_weights_by_parameter,
        ("parameter",),
        source=_SOURCE,
    )


def _squares(params: Params) -> Float[Array, " parameter"]:
    """Sum of theta^2 of each array."""
    # XLA may sum in another order when other measures are read beside this one; the barrier keeps
    # the reduction, and so its rounding, separate from them.
    return jax.lax.optimization_barrier(
        jnp.stack([jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(params)])
    )
