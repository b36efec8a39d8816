"""LAPACK of many matrices, one after the other.

jaxlib hands the matrices of a batch to XLA's thread pool and waits for them on a thread of that
pool. Where a program has as many such calls ready as the pool has threads, all of them wait, for
ever: two batched QRs on two cores are enough (jaxlib 0.10.2). A call of one matrix waits for
nobody. Others report the same of XLA's FFT; we have not seen it, and do without
(``measures.fourier.dft_power``).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def one_by_one(function: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """A function of one matrix, for arrays of them: along all axes before the last two, and under
    vmap, one after the other.

    Example:
        >>> one_by_one(jnp.linalg.eigvals)(jnp.ones((3, 2, 4, 4))).shape
        (3, 2, 4)
    """
    alone = jax.custom_batching.sequential_vmap(function)

    @functools.wraps(function)
    def mapped(matrices: Array) -> Any:
        *batch, m, n = matrices.shape
        if not batch:
            return alone(matrices)
        found = jax.lax.map(alone, matrices.reshape(math.prod(batch), m, n))
        return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), found)

    return mapped


qr = one_by_one(lambda matrix: tuple(jnp.linalg.qr(matrix)))
"""Q and R, reduced."""

triangle = one_by_one(functools.partial(jnp.linalg.qr, mode="r"))
"""R of the QR."""

svd = one_by_one(lambda matrix: tuple(jnp.linalg.svd(matrix, full_matrices=False)))
"""u, s (falling) and v^T, reduced."""

singular_values = one_by_one(functools.partial(jnp.linalg.svd, compute_uv=False))
"""s, falling."""

eigenvalues = one_by_one(jnp.linalg.eigvals)
"""Of square matrices; on CPU."""
