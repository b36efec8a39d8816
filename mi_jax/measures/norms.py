"""Sizes of the weights."""

import jax
import jax.numpy as jnp

from mi_jax.arrays import Params, Scalar
from mi_jax.contracts import Context, Measure


def sum_squared_weights() -> Measure:
    """sum of theta^2 over all parameters, biases included (arXiv 2301.05217)."""

    def function(params: Params, context: Context) -> Scalar:
        return jnp.stack([jnp.square(leaf).sum() for leaf in jax.tree.leaves(params)]).sum()

    return Measure("sum_squared_weights", function, source="arXiv 2301.05217")
