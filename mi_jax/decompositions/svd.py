"""Singular values of the weight tables, and the rank they amount to."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure
from mi_jax.measures.fourier import TABLES


def _values(table: Float[Array, "residue d"]) -> Float[Array, " mode"]:
    """The singular values, falling; as many as there are residues: those that a narrow table can't
    have are 0.
    """
    s = jnp.linalg.svd(table, compute_uv=False)
    return jnp.pad(s, (0, table.shape[0] - len(s)))


def singular_values(place: str) -> Measure:
    """Singular values of W_E or W_L, the task's tokens or classes only, falling (arXiv 2301.05217
    shows those of W_L).

    Args:
        place: "embedding" or "unembedding".
    """
    table, role = TABLES[place]

    def function(params: Params, context: Context) -> Float[Array, " mode"]:
        return _values(table(params, context))

    return Measure(
        f"singular_values_{place}", function, ("mode",), roles=(role,), source="arXiv 2301.05217"
    )


def effective_rank(place: str) -> Measure:
    """exp of the entropy of the singular values' shares, -sum q ln q with q = s / sum s (Roy and
    Vetterli 2007).

    Args:
        place: "embedding" or "unembedding".
    """
    table, role = TABLES[place]

    def function(params: Params, context: Context) -> Scalar:
        s = _values(table(params, context))
        q = s / s.sum()
        return jnp.exp(-jnp.where(q == 0, 0, q * jnp.log(q)).sum())

    return Measure(
        f"effective_rank_{place}", function, roles=(role,), source="Roy and Vetterli 2007"
    )
