"""The subspace that a probe reads, and what can be done to it: erased, steered along, swapped
(LEACE, arXiv 2306.03819).

Vectors x are whitened, z = L^-1 (x - mean) with L L^T their covariance (plus ridge v, see
``linear_probes``); the class means of z span the subspace, whose leading directions Q [d rank] are
those along which the classes differ most, in units of the vectors' own spread. Everything is done
to Q^T z, and L carries it back: of all edits that take a class mean's difference away it is the
smallest. A random Q of the same rank is the null: it takes away as much of the whitened variance.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics import lapack
from mi_jax.measures.linear_probes import mean_variance

How = Literal["erase", "steer", "swap"]

_ZERO = 1e-6
"""Canonical correlation squared below which classes don't differ along a direction; float32's
rounding.
"""


class Whitening(NamedTuple):
    """z = L^-1 (x - mean)."""

    mean: Float[Array, " d"]
    L: Float[Array, "d d"]
    """Lower triangular, L L^T the covariance plus ridge v."""


def whitening(X: Float[Array, "example d"], ridge: float) -> Whitening:
    """That of vectors as they are."""
    mean = X.mean(axis=0)
    around = X - mean[None]
    d = X.shape[1]
    return Whitening(
        mean,
        jnp.linalg.cholesky(
            around.T @ around / len(X) + ridge * mean_variance(around) * jnp.eye(d)
        ),
    )


def whiten(X: Float[Array, "example d"], by: Whitening) -> Float[Array, "example d"]:
    """z."""
    return jax.scipy.linalg.solve_triangular(by.L, (X - by.mean[None]).T, lower=True).T


def class_means(
    Z: Float[Array, "example d"], Y: Float[Array, "class example"]
) -> Float[Array, "class d"]:
    """Mean of each class; 0 for one without examples."""
    return (Y @ Z) / jnp.maximum(Y.sum(axis=1, keepdims=True), 1)


def probed_subspace(
    Z: Float[Array, "example d"], Y: Float[Array, "class example"], rank: int
) -> Float[Array, "d rank"]:
    """Q: the directions along which whitened class means vary most, each class by its share:
    orthonormal columns.

    The left singular vectors of sum_c sqrt(n_c / n) mean_c e_c^T; their singular values are the
    canonical correlations of vectors and classes. Columns beyond the means' own rank are 0: there
    is nothing to take away.
    """
    weighted = class_means(Z, Y) * jnp.sqrt(Y.mean(axis=1, keepdims=True))
    small = weighted @ weighted.T if len(weighted) <= weighted.shape[1] else weighted.T @ weighted
    powers, vectors = jnp.linalg.eigh(small)
    powers, vectors = powers[::-1][:rank], vectors[:, ::-1][:, :rank]
    Q = (
        weighted.T @ vectors / jnp.sqrt(jnp.maximum(powers, _ZERO))[None]
        if len(weighted) <= weighted.shape[1]
        else vectors
    )
    return jnp.where((powers > _ZERO)[None], Q, 0.0)


def random_subspaces(
    Z: Float[Array, "example d"], rank: int, draws: int, seed: int
) -> Float[Array, "draw d rank"]:
    """Random orthonormal frames that lie where the vectors do: spanned by draws from N(0, Z^T Z /
    n).

    So are the class means of random labels. A frame drawn from all directions alike would lie
    mostly where nothing varies, and anything at all would beat it.
    """
    n, d = Z.shape
    spread = jnp.linalg.cholesky(Z.T @ Z / n + _ZERO * jnp.eye(d))
    normal = np.random.default_rng([seed, d, rank]).normal(size=(draws, d, rank)).astype(np.float32)
    return lapack.qr(jnp.einsum("de,ner->ndr", spread, normal))[0]


def coordinates(
    how: How, Z: Float[Array, "row d"], Q: Float[Array, "d rank"], ahead: int = 1
) -> Float[Array, "row rank"]:
    """How far each row is moved along each column of Q. Erased: -Q^T z. Swapped: Q^T (z' - z), z'
    the row that far ahead.
    """
    return -Z @ Q if how == "erase" else (jnp.roll(Z, -ahead, axis=0) - Z) @ Q


def steering(
    means: Float[Array, "class d"],
    Y: Float[Array, "class row"],
    Q: Float[Array, "d rank"],
    ahead: int = 1,
) -> Float[Array, "row rank"]:
    """From the mean of the row's class to that of the row that far ahead: Q^T (mean' - mean)."""
    own = ((means @ Q).T @ Y).T
    return jnp.roll(own, -ahead, axis=0) - own


def moved(
    X: Float[Array, "example d"],
    coordinates: Float[Array, "example rank"],
    Q: Float[Array, "d rank"],
    by: Whitening,
) -> Float[Array, "example d"]:
    """x + L Q coordinates."""
    return X + coordinates @ (by.L @ Q).T
