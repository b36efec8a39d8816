"""The two products that every model is made of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped


def lookup(tokens: Int[Array, "..."], W: Float[Array, "token *row"]) -> Float[Array, "..."]:
    """W[tokens]; NaN for a token that the table doesn't have, instead of some other token's row."""
    return W.at[tokens].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def matmul(x: Float[Array, "*b i"], W: Float[Array, "i o"]) -> Float[Array, "*b o"]:
    """x W with the rows flattened first: a position axis of 1 left in costs a fifth of the step on
    CPU.

    Where W is tall, its gradient is computed lying down: the same product takes two thirds of the
        time there on CPU.
    """
    if W.shape[0] > W.shape[1]:
        W = jax.lax.optimization_barrier(W.T).T
    return (x.reshape(-1, x.shape[-1]) @ W).reshape(*x.shape[:-1], W.shape[-1])


def spread(row: Shaped[Array, "*i"], x: Float[Array, "..."]) -> Shaped[Array, "..."]:
    """``row`` with leading axes of length 1, as many as ``x`` has: rank promotion, said aloud."""
    return jnp.expand_dims(row, tuple(range(x.ndim - row.ndim)))
