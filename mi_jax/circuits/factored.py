"""A product A B of a tall and a wide matrix, read from its factors: it is never formed, and nothing
depends on how it is split.

A head's circuits are such products, W_Q W_K^T and W_V W_O: what the network computes is unchanged
under W_V M, M^-1 W_O, and so is every reading here. Dimension letters: m rows, n columns, r the
width of the split; leading axes are batches.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from mi_jax.basics import lapack


class Factored(NamedTuple):
    """left @ right, as its factors."""

    left: Float[Array, "*b m r"]
    right: Float[Array, "*b r n"]

    @property
    def T(self) -> "Factored":
        """(A B)^T = B^T A^T."""
        return Factored(jnp.matrix_transpose(self.right), jnp.matrix_transpose(self.left))

    def product(self) -> Float[Array, "*b m n"]:
        """The matrix itself."""
        return self.left @ self.right


class SVD(NamedTuple):
    """left diag(values) right: singular vectors as columns and as rows, values falling."""

    left: Float[Array, "*b m r"]
    values: Float[Array, "*b r"]
    right: Float[Array, "*b r n"]


def between(
    before: Float[Array, "*b k m"], one: Factored, after: Float[Array, "*b n l"]
) -> Factored:
    """before (A B) after."""
    return Factored(before @ one.left, one.right @ after)


def through(first: Factored, second: Factored) -> Factored:
    """(A B)(C D) as A ((B C) D): its width is that of the first."""
    return Factored(first.left, (first.right @ second.left) @ second.right)


def norm(one: Factored) -> Float[Array, "*b"]:
    """Frobenius norm: ||A B||^2 = tr(A^T A B B^T)."""
    left, right = (
        jnp.matrix_transpose(one.left) @ one.left,
        one.right @ jnp.matrix_transpose(one.right),
    )
    return jnp.sqrt(jnp.maximum((left * jnp.matrix_transpose(right)).sum(axis=(-2, -1)), 0))


def svd(one: Factored) -> SVD:
    """Singular values and vectors, from the triangles of both factors' QR: r x r instead of m x n.
    Needs r <= m, n.
    """
    Q_left, R_left = lapack.qr(one.left)
    Q_right, R_right = lapack.qr(jnp.matrix_transpose(one.right))
    u, values, vt = lapack.svd(R_left @ jnp.matrix_transpose(R_right))
    return SVD(Q_left @ u, values, vt @ jnp.matrix_transpose(Q_right))


def singular_values(one: Factored) -> Float[Array, "*b r"]:
    """The r singular values that may differ from 0, falling."""
    R_left, R_right = lapack.triangle(one.left), lapack.triangle(jnp.matrix_transpose(one.right))
    return lapack.singular_values(R_left @ jnp.matrix_transpose(R_right))


def eigenvalues(one: Factored) -> Complex[Array, "*b r"]:
    """The r eigenvalues of a square A B that may differ from 0: those of B A, r x r. On CPU; NaN
    where it isn't finite.
    """
    small = one.right @ one.left
    finite = jnp.isfinite(small).all(axis=(-2, -1), keepdims=True)
    found = lapack.eigenvalues(jnp.where(finite, small, 0))
    return jnp.where(finite[..., 0], found, jnp.nan)


def balanced(one: Factored) -> Factored:
    """The same product split evenly, U sqrt(S) and sqrt(S) V^T: the same factors (but for signs)
    whatever the split was.
    """
    left, values, right = svd(one)
    root = jnp.sqrt(values)
    return Factored(left * root[..., None, :], root[..., :, None] * right)


def eigenvalue_score(one: Factored) -> Float[Array, "*b"]:
    """sum lambda / sum |lambda| in [-1, 1]: 1 where all eigenvalues are positive reals, 0 on
    average for a random matrix.
    """
    found = eigenvalues(one)
    return found.real.sum(axis=-1) / jnp.abs(found).sum(axis=-1)
