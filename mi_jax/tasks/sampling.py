"""Finite sets of examples: drawing them once, and which of them a step sees, as a pure function of
(key, step).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.contracts.task import LONGEST_CHUNK


def minibatches(
    key: PRNGKey, size: int, batch: int, start: Count, n: Count
) -> Callable[[Count], Int[Array, " batch"]]:
    """Indices of the examples of steps start to start + n - 1, each epoch a fresh permutation
    without its remainder.

    Epoch e is ``permutation(fold_in(key, e), size)``, cut into size // batch batches, so that step
    s sees the same examples however training is cut. Only the epochs that the chunk touches are
    drawn, in a loop of traced length.

    Args:
        size: examples in the set. batch: examples a step. start, n: traced; n is at most
            LONGEST_CHUNK.

    Returns:
        i -> indices of step start + i.
    """
    per_epoch = size // batch
    first = start // per_epoch
    touched = (start + n - 1) // per_epoch - first + 1
    most = min(LONGEST_CHUNK, -(-LONGEST_CHUNK // per_epoch) + 1)

    def _draw(e: Count, orders: Int[Array, "epoch size"]) -> Int[Array, "epoch size"]:
        order = jax.random.permutation(jax.random.fold_in(key, first + e), size)
        return orders.at[e].set(order.astype(jnp.int32))

    orders = jax.lax.fori_loop(0, touched, _draw, jnp.zeros((most, size), jnp.int32))

    def indices(i: Count) -> Int[Array, " batch"]:
        epoch, place = (start + i) // per_epoch - first, (start + i) % per_epoch
        return jax.lax.dynamic_slice(orders, (epoch, place * batch), (1, batch))[0]

    return indices


def distinct(
    draw: Callable[[int], Int[np.ndarray, "n ..."]],
    count: int,
    apart_from: Int[np.ndarray, "m ..."] | None = None,
) -> Int[np.ndarray, "count ..."]:
    """The first ``count`` different examples that repeated draws give, none of them among
    ``apart_from``.

    Args:
        draw: n -> n examples, with replacement; there must be at least count + m different ones.
        apart_from: m different examples.
    """
    rows = draw(count) if apart_from is None else np.concatenate([apart_from, draw(count)])
    taken = len(rows) - count
    while True:
        first = np.sort(np.unique(rows, axis=0, return_index=True)[1])[taken:]
        if len(first) >= count:
            return rows[first[:count]]
        rows = np.concatenate([rows, draw(count)])
