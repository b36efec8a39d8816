"""The subspace that a probe reads, and its edits: erasing, steering and swapping.

Vectors x are whitened: z = L^-1 (x - mean), where L L^T is their covariance (plus ridge v, see
``linear_probes``). The class means of z span the probed subspace. Its leading directions Q [d rank]
are those along which the classes differ most, in units of the vectors' own spread. Every edit moves
z within the span of Q, and L carries the movement back to x. Of all linear edits that remove the
differences of the class means this one changes the vectors least (LEACE, arXiv 2306.03819). The
null is a random Q of the same rank, which removes as much of the whitened variance.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics import lapack
from mi_jax.measures.linear_probes import mean_variance

How = Literal["erase", "steer", "swap"]
"""Names of the edits: see ``probe_effects.probe_effect``."""

_ZERO = 1e-6
"""Squared canonical correlation below which classes do not differ along a direction.

float32 rounds to about this.
"""


class Whitening(NamedTuple):
    """The map z = L^-1 (x - mean).

    Attributes:
        mean: of the vectors.
        L: lower triangular; L L^T is the covariance of the vectors plus ridge v.
    """

    mean: Float[Array, " d"]
    L: Float[Array, "d d"]


def whitening(X: Float[Array, "example d"], ridge: float) -> Whitening:
    """The whitening of vectors.

    It subtracts their mean and divides by a Cholesky factor of their covariance.

    Args:
        X: vectors; their mean is subtracted here.
        ridge: added to the diagonal of the covariance, in units of the mean variance of the
            coordinates.

    Returns:
        The map; apply it with ``whiten``.
    """
    mean = X.mean(axis=0)
    around = X - mean[None]
    d = X.shape[1]
    covariance = around.T @ around / len(X) + ridge * mean_variance(around) * jnp.eye(d)
    return Whitening(mean, jnp.linalg.cholesky(covariance))


def whiten(X: Float[Array, "example d"], by: Whitening) -> Float[Array, "example d"]:
    """The whitened vectors z."""
    return jax.scipy.linalg.solve_triangular(by.L, (X - by.mean[None]).T, lower=True).T


def class_means(
    Z: Float[Array, "example d"], Y: Float[Array, "class example"]
) -> Float[Array, "class d"]:
    """The mean of each class; 0 for a class without examples.

    Args:
        Z: the vectors.
        Y: one-hot classes.
    """
    return (Y @ Z) / jnp.maximum(Y.sum(axis=1, keepdims=True), 1)


def probed_subspace(
    Z: Float[Array, "example d"], Y: Float[Array, "class example"], rank: int
) -> Float[Array, "d rank"]:
    """The directions Q along which whitened class means vary most, each class by its share.

    They are the left singular vectors of sum_c sqrt(n_c / n) mean_c e_c^T, whose singular values
    are the canonical correlations of vectors and classes.

    Args:
        Z: whitened vectors.
        Y: one-hot classes.
        rank: number of directions.

    Returns:
        Orthonormal columns. Columns beyond the rank of the means are 0: there is nothing to erase.
    """
    weighted = class_means(Z, Y) * jnp.sqrt(Y.mean(axis=1, keepdims=True))
    # The eigenvectors of the smaller Gram matrix give the singular vectors.
    few_classes = len(weighted) <= weighted.shape[1]
    gram = weighted @ weighted.T if few_classes else weighted.T @ weighted
    powers, vectors = jnp.linalg.eigh(gram)
    powers, vectors = powers[::-1][:rank], vectors[:, ::-1][:, :rank]
    Q = vectors
    if few_classes:
        Q = weighted.T @ vectors / jnp.sqrt(jnp.maximum(powers, _ZERO))[None]
    return jnp.where((powers > _ZERO)[None], Q, 0.0)


def random_subspaces(
    Z: Float[Array, "example d"], rank: int, draws: int, seed: int
) -> Float[Array, "draw d rank"]:
    """Random orthonormal frames that lie where the vectors do: the null of ``probed_subspace``.

    A frame is spanned by draws from N(0, Z^T Z / n), as the class means of random labels are. A
    frame drawn uniformly from all directions would lie mostly where nothing varies, and any probed
    subspace would beat it.

    Args:
        Z: whitened vectors.
        rank: number of directions in a frame.
        draws: number of frames.
        seed: of the generator; the same seed gives the same frames.
    """
    n, d = Z.shape
    spread = jnp.linalg.cholesky(Z.T @ Z / n + _ZERO * jnp.eye(d))
    normal = np.random.default_rng([seed, d, rank]).normal(size=(draws, d, rank)).astype(np.float32)
    return lapack.qr(jnp.einsum("de,ner->ndr", spread, normal))[0]


def displacement(
    how: How, Z: Float[Array, "row d"], Q: Float[Array, "d rank"], ahead: int = 1
) -> Float[Array, "row rank"]:
    """How far erasing or swapping moves each row along each column of Q.

    Erasing moves by -Q^T z, swapping by Q^T (z' - z), where z' is another row.

    Args:
        how: "erase" or "swap"; for "steer" see ``steering``.
        Z: whitened vectors.
        Q: the subspace.
        ahead: how many rows after a row its z' stands.
    """
    return -Z @ Q if how == "erase" else (jnp.roll(Z, -ahead, axis=0) - Z) @ Q


def steering(
    means: Float[Array, "class d"],
    Y: Float[Array, "class row"],
    Q: Float[Array, "d rank"],
    ahead: int = 1,
) -> Float[Array, "row rank"]:
    """How far steering moves each row: from its class's mean to another row's class mean.

    Q^T (mean' - mean), where mean' is that of the other row's class.

    Args:
        means: whitened class means.
        Y: one-hot classes of the rows.
        Q: the subspace.
        ahead: how many rows after a row the other row stands.
    """
    row_means = ((means @ Q).T @ Y).T
    return jnp.roll(row_means, -ahead, axis=0) - row_means


def displace(
    X: Float[Array, "example d"],
    displacements: Float[Array, "example rank"],
    Q: Float[Array, "d rank"],
    by: Whitening,
) -> Float[Array, "example d"]:
    """The edited vectors x + L Q displacement.

    Args:
        X: the vectors, not whitened.
        displacements: along each column of Q, in whitened units.
        Q: the subspace.
        by: the whitening that Q belongs to.
    """
    return X + displacements @ (by.L @ Q).T
