"""Matrix decompositions of many matrices, one after another. Batched LAPACK calls can deadlock.

On CPU, jaxlib hands the matrices of a batch to XLA's thread pool, and waits for them on a thread of
that pool. A program with as many such calls ready as the pool has threads waits for ever: two
batched QRs on two cores are enough (jaxlib 0.10.2). A call on a single matrix waits for no other
thread. Others report the same deadlock for XLA's FFT, which mi_jax therefore does not use: see
``fourier.dft_power``.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def one_by_one(function: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """Extend a function of one matrix to arrays of matrices, one after another.

    It runs in a loop over all axes before the last two, and over every axis of an enclosing vmap.

    Args:
        function: function of one matrix, which returns a pytree of arrays.

    Returns:
        The function of arrays [... m n]; its results have the leading axes in front.

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
        results = jax.lax.map(alone, matrices.reshape(math.prod(batch), m, n))
        return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), results)

    return mapped


qr = one_by_one(lambda matrix: tuple(jnp.linalg.qr(matrix)))
"""Reduced QR decomposition: (Q, R)."""

triangle = one_by_one(functools.partial(jnp.linalg.qr, mode="r"))
"""Factor R of the reduced QR decomposition."""

svd = one_by_one(lambda matrix: tuple(jnp.linalg.svd(matrix, full_matrices=False)))
"""Reduced singular value decomposition: (u, s, v^T), with s in descending order."""

singular_values = one_by_one(functools.partial(jnp.linalg.svd, compute_uv=False))
"""Singular values in descending order."""

eigenvalues = one_by_one(jnp.linalg.eigvals)
"""Complex eigenvalues of square matrices. JAX has this decomposition on CPU only."""
