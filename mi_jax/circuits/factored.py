"""Products A B of a tall and a wide matrix, read from their factors without being formed.

A head's circuits are such products: W_Q W_K^T and W_V W_O. The network computes the same under
W_V M, M^-1 W_O, and every reading here is unchanged too. Dimension letters: m rows, n columns, r
the width of the split; leading axes are batches.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from mi_jax.basics import lapack


class Factored(NamedTuple):
    """A product left @ right, as its factors.

    Attributes:
        left: the tall factor A.
        right: the wide factor B.
    """

    left: Float[Array, "*b m r"]
    right: Float[Array, "*b r n"]

    @property
    def T(self) -> "Factored":
        """The transpose (A B)^T = B^T A^T."""
        return Factored(jnp.matrix_transpose(self.right), jnp.matrix_transpose(self.left))

    def product(self) -> Float[Array, "*b m n"]:
        """The matrix itself."""
        return self.left @ self.right


def between(
    before: Float[Array, "*b k m"], middle: Factored, after: Float[Array, "*b n l"]
) -> Factored:
    """The product before (A B) after."""
    return Factored(before @ middle.left, middle.right @ after)


def through(first: Factored, second: Factored) -> Factored:
    """The product (A B)(C D), factored as A and (B C) D: its width is that of the first."""
    return Factored(first.left, (first.right @ second.left) @ second.right)


def norm(matrix: Factored) -> Float[Array, "*b"]:
    """The Frobenius norm, by ||A B||^2 = tr(A^T A B B^T)."""
    left, right = (
        jnp.matrix_transpose(matrix.left) @ matrix.left,
        matrix.right @ jnp.matrix_transpose(matrix.right),
    )
    # Rounding may make a vanishing trace slightly negative.
    return jnp.sqrt(jnp.maximum((left * jnp.matrix_transpose(right)).sum(axis=(-2, -1)), 0))


def singular_values(matrix: Factored) -> Float[Array, "*b r"]:
    """The r singular values that may differ from 0, in falling order.

    They are those of R_A R_B^T, r x r, where R_A and R_B are the triangles of the QR of A and B^T.
    """
    R_left = lapack.triangle(matrix.left)
    R_right = lapack.triangle(jnp.matrix_transpose(matrix.right))
    return lapack.singular_values(R_left @ jnp.matrix_transpose(R_right))


def eigenvalues(matrix: Factored) -> Complex[Array, "*b r"]:
    """The r eigenvalues of a square A B that may differ from 0: those of B A, which is r x r.

    NaN for matrices that are not finite. Runs on the CPU only.
    """
    small = matrix.right @ matrix.left
    # LAPACK is undefined on matrices that are not finite, so it gets zeros instead.
    finite = jnp.isfinite(small).all(axis=(-2, -1), keepdims=True)
    values = lapack.eigenvalues(jnp.where(finite, small, 0))
    return jnp.where(finite[..., 0], values, jnp.nan)


def eigenvalue_score(matrix: Factored) -> Float[Array, "*b"]:
    """The sum of the eigenvalues over the sum of their absolute values, between -1 and 1.

    It is 1 if all eigenvalues are positive reals, and 0 on average for a random matrix.
    """
    values = eigenvalues(matrix)
    return values.real.sum(axis=-1) / jnp.abs(values).sum(axis=-1)
