"""Sizes of the weights."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure


def sum_squared_weights() -> Measure:
    """sum of theta^2 over all parameters, biases included (arXiv 2301.05217)."""

    def function(params: Params, context: Context) -> Scalar:
        return _squares(params).sum()

    return Measure("sum_squared_weights", function, source="arXiv 2301.05217")


def sum_squared_weights_by_parameter() -> Measure:
    """sum of theta^2 of each array, in the order of the parameters' dotted names."""

    def function(params: Params, context: Context) -> Float[Array, " parameter"]:
        return _squares(params)

    return Measure(
        "sum_squared_weights_by_parameter", function, ("parameter",), source="arXiv 2301.05217"
    )


def _squares(params: Params) -> Float[Array, " parameter"]:
    """sum of theta^2 of each array: what the compiler does with a reduction depends on what else is
    read, so it is kept apart.
    """
    return jax.lax.optimization_barrier(
        jnp.stack([jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(params)])
    )
