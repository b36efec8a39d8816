"""Where tokens stand: the positions that are read, which ones a query sees, rotary and relative
positions.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mi_jax.basics.errors import require
from mi_jax.models.products import lookup

_ROTARY_BASE = 10_000.0


def positions_read(positions: Sequence[int] | None, length: int) -> tuple[int, ...]:
    """The given positions, or all of them. Raises ConfigError for one that an input of this length
    doesn't have, or for none.
    """
    read = (
        tuple(range(length))
        if positions is None
        else tuple(int(position) for position in positions)
    )
    require(
        len(read) > 0 and all(0 <= place < length for place in read),
        f"positions={read}: an input of {length} has positions 0 to {length - 1}; at least one is"
        " read",
    )
    return read


def causal_mask(queries: tuple[int, ...], length: int) -> Bool[Array, "q k"]:
    """Whether a query sees a key: key position <= query position."""
    return jnp.array(queries)[:, None] >= jnp.arange(length)[None, :]


def rotate(x: Float[Array, "b t h e"], positions: Int[Array, " t"]) -> Float[Array, "b t h e"]:
    """Rotary embedding: pairs (x_j, x_{j + e/2}) turned by position * base^(-2j/e) (arXiv
    2104.09864, halves).
    """
    half = x.shape[-1] // 2
    angles = positions[:, None] * _ROTARY_BASE ** (-jnp.arange(half) / half)[None, :]
    cos, sin = jnp.cos(angles)[None, :, None, :], jnp.sin(angles)[None, :, None, :]
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def distance_count(length: int, *, causal: bool) -> int:
    """How many distances query - key there are in an input: none below 0 where attention is causal."""
    return length if causal else 2 * length - 1


def distance_rows(
    queries: Sequence[int], length: int, distances: int, *, causal: bool
) -> Int[Array, "q k"]:
    """By query and key, the row of a table of distances: query - key, counted from the smallest
    distance there is.

    Keys that a causal query doesn't see have row 0. A distance that the table doesn't have has a
    row outside of it, for which ``lookup`` gives NaN.
    """
    apart = jnp.array(tuple(queries))[:, None] - jnp.arange(length)[None, :]
    return jnp.maximum(apart, 0) if causal else apart + distances // 2


def by_distance(
    W: Float[Array, "h distance e"], rows: Int[Array, "q k"]
) -> Float[Array, "q k h e"]:
    """The vectors of each head for these rows."""
    return lookup(rows, W.transpose(1, 0, 2))
