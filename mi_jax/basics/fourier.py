"""The Fourier basis of Z_p, the components of a table along it, and the rule for key frequencies
(arXiv 2301.05217).

F has orthonormal rows: 1/sqrt(p), then cos(2 pi k x / p) and sin(2 pi k x / p) for k = 1 ... p //
    2, each divided by its norm;
for even p the last frequency has a cosine only.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

KEY_THRESHOLD = 0.25
"""Share of the largest component above which a frequency is key."""


@lru_cache(maxsize=8)
def fourier_basis(p: int) -> Float[np.ndarray, "component token"]:
    """F [p p]: rows 1/sqrt(p), cos 1, sin 1, cos 2, sin 2, ... (for even p the last row is the
    alternating one).

    Example:
        >>> bool(np.allclose(fourier_basis(5) @ fourier_basis(5).T, np.eye(5), atol=1e-6))
        True
    """
    x = np.arange(p)
    rows = [np.ones(p)]
    for k in range(1, p // 2 + 1):
        angle = 2 * np.pi * k * x / p
        rows += [np.cos(angle), np.sin(angle)] if 2 * k != p else [np.cos(angle)]
    basis = np.stack(rows)
    basis = (basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32)
    basis.setflags(write=False)  # it is kept for the next caller
    return basis


def dft_power(table: Float[Array, "token column"]) -> Float[Array, "frequency column"]:
    """|sum_t v_t e^(-2 pi i k t / p)|^2 of every column v, k = 0 ... p // 2.

    By a product, without XLA's FFT (see ``lapack``).

    Example:
        >>> dft_power(jnp.ones((3, 1))).tolist()
        [[9.0], [0.0]]
    """
    p = table.shape[0]
    squares = jnp.square(jnp.asarray(fourier_basis(p)) @ table)
    pairs = jnp.pad(squares[1:], ((0, (p - 1) % 2), (0, 0))).reshape(p // 2, 2, -1).sum(axis=1)
    scale = np.full((p // 2, 1), p / 2, np.float32)
    scale[p // 2 - 1 :] *= 2 - p % 2
    return jnp.concatenate([p * squares[:1], scale * pairs])


def frequencies(p: int) -> int:
    """How many frequencies there are: p // 2."""
    return p // 2


def component_norms(table: Float[Array, "token d"]) -> Float[Array, " component"]:
    """Norms of the rows of F @ table, without the constant: cos 1, sin 1, cos 2, sin 2, ..."""
    return jnp.linalg.norm(fourier_basis(table.shape[0]) @ table, axis=1)[1:]


def by_frequency(
    components: Float[Array, "component *rest"], frequency_count: int
) -> Float[Array, "frequency part *rest"]:
    """Components as [cos, sin] of each frequency; 0 where an even p has no sine."""
    padding = ((0, 2 * frequency_count - components.shape[0]), *((0, 0),) * (components.ndim - 1))
    return jnp.pad(components, padding).reshape(frequency_count, 2, *components.shape[1:])


def key_rule(table: Float[Array, "token d"]) -> Bool[Array, " frequency"]:
    """Frequencies whose cosine or sine component of a table exceeds a quarter of the largest
    non-constant one.
    """
    best = by_frequency(component_norms(table), frequencies(table.shape[0])).max(axis=1)
    return best > KEY_THRESHOLD * best.max()
