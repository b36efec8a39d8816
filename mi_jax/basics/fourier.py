"""The Fourier basis F of Z_p, components of a table along it, and the rule for key frequencies.

F has orthonormal rows: the constant 1/sqrt(p), then cos(2 pi k x / p) and sin(2 pi k x / p) for
k = 1, ..., p // 2, each divided by its norm. For even p, the last frequency has a cosine only. The
rule is that of arXiv 2301.05217.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

KEY_THRESHOLD = 0.25
"""A frequency is key if its component exceeds this share of the largest component."""


@lru_cache(maxsize=8)
def fourier_basis(p: int) -> Float[np.ndarray, "component token"]:
    """The basis F, [p p], in float32: rows 1/sqrt(p), cos 1, sin 1, cos 2, sin 2, ...

    For even p, the last row alternates in sign.

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
    basis.setflags(write=False)  # the cache gives the same array to every caller
    return basis


def dft_power(table: Float[Array, "token column"]) -> Float[Array, "frequency column"]:
    """Power |sum_t v_t e^(-2 pi i k t / p)|^2 of every column v at k = 0, ..., p // 2.

    Computed as a matrix product, without XLA's FFT: see ``lapack``.

    Args:
        table: the columns, [token column].

    Returns:
        The powers, [frequency column], with frequency 0 first.

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
    """Number of frequencies, p // 2."""
    return p // 2


def component_norms(table: Float[Array, "token d"]) -> Float[Array, " component"]:
    """Norms of the rows of F @ table, without the constant row: cos 1, sin 1, cos 2, sin 2, ..."""
    return jnp.linalg.norm(fourier_basis(table.shape[0]) @ table, axis=1)[1:]


def by_frequency(
    components: Float[Array, "component *rest"], frequency_count: int
) -> Float[Array, "frequency part *rest"]:
    """Reshape components to [cos, sin] per frequency, with 0 where an even p has no sine.

    Args:
        components: cos 1, sin 1, cos 2, ..., [component *rest].
        frequency_count: number of frequencies, p // 2.

    Returns:
        The components, [frequency part *rest].
    """
    padding = ((0, 2 * frequency_count - components.shape[0]), *((0, 0),) * (components.ndim - 1))
    return jnp.pad(components, padding).reshape(frequency_count, 2, *components.shape[1:])


def key_rule(table: Float[Array, "token d"]) -> Bool[Array, " frequency"]:
    """Key frequencies of a table: those with a large cosine or sine component.

    A component is large if it exceeds ``KEY_THRESHOLD`` times the largest non-constant component.

    Args:
        table: the table, [token d].

    Returns:
        Whether each frequency 1, ..., p // 2 is key, [frequency].
    """
    best = by_frequency(component_norms(table), frequencies(table.shape[0])).max(axis=1)
    return best > KEY_THRESHOLD * best.max()
