"""Singular values of the weight tables, and the effective rank that they amount to."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure
from mi_jax.measures.fourier import TABLES


def _values(table: Float[Array, "residue d"]) -> Float[Array, " mode"]:
    """Singular values in falling order, one per residue; 0 where a narrow table has no more."""
    s = jnp.linalg.svd(table, compute_uv=False)
    return jnp.pad(s, (0, table.shape[0] - len(s)))


def singular_values(place: str) -> Measure:
    """Singular values of a weight table, restricted to the task's tokens or classes.

    Few large values mean that the table uses few directions. arXiv 2301.05217 shows those of W_L.

    Args:
        place: which table: "embedding" (W_E), "unembedding" (W_L = W_out W_U), or another key of
            ``measures.fourier.TABLES``. It needs the role of that table.

    Returns:
        A measure ``singular_values_{place}`` with dims (mode,), in falling order, one mode per
        residue; 0 for modes that a narrow table does not have.
    """
    table, role = TABLES[place]

    def _singular_values(params: Params, context: Context) -> Float[Array, " mode"]:
        return _values(table(params, context))

    return Measure(
        f"singular_values_{place}",
        _singular_values,
        ("mode",),
        roles=(role,),
        source="arXiv 2301.05217",
    )


def effective_rank(place: str) -> Measure:
    """Effective rank of a weight table: the exponential of the entropy of its singular values.

    exp(-sum q ln q) with q = s / sum s (Roy and Vetterli 2007). It is 1 for a table of rank one,
    and n for a table with n equal singular values.

    Args:
        place: which table: "embedding" (W_E), "unembedding" (W_L = W_out W_U), or another key of
            ``measures.fourier.TABLES``. It needs the role of that table.

    Returns:
        A measure ``effective_rank_{place}`` without dims of its own.
    """
    table, role = TABLES[place]

    def _effective_rank(params: Params, context: Context) -> Scalar:
        s = _values(table(params, context))
        q = s / s.sum()
        # 0 ln 0 is 0, which floating point makes NaN.
        return jnp.exp(-jnp.where(q == 0, 0, q * jnp.log(q)).sum())

    return Measure(
        f"effective_rank_{place}", _effective_rank, roles=(role,), source="Roy and Vetterli 2007"
    )
