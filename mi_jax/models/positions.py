"""Positions of tokens: which are read, which a query sees, and rotary and relative positions."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mi_jax.basics.errors import ConfigError
from mi_jax.models.products import lookup

_ROTARY_BASE = 10_000.0


def positions_read(positions: Sequence[int] | None, length: int) -> tuple[int, ...]:
    """The positions to compute: those given, or all of them for None.

    Args:
        positions: the positions asked for.
        length: the number of positions of the input.

    Raises:
        ConfigError: if ``positions`` is empty or one lies outside the input.
    """
    if positions is None:
        read = tuple(range(length))
    else:
        read = tuple(int(position) for position in positions)
    if not read or not all(0 <= position < length for position in read):
        raise ConfigError(
            f"positions={read} is invalid. An input of length {length} has positions 0 to"
            f" {length - 1}. Give at least one of them."
        )
    return read


def causal_mask(queries: tuple[int, ...], length: int) -> Bool[Array, "q k"]:
    """Whether each query sees each key: key position <= query position."""
    return jnp.array(queries)[:, None] >= jnp.arange(length)[None, :]


def rotate(x: Float[Array, "b t h e"], positions: Int[Array, " t"]) -> Float[Array, "b t h e"]:
    """Applies a rotary embedding (arXiv 2104.09864).

    Each pair (x_j, x_{j + e/2}) is turned by the angle position * base^(-2j/e), base = 10,000. The
    two numbers of a pair stand half a head apart, as in GPT-NeoX, not side by side.

    Args:
        x: queries or keys.
        positions: the position of each row.
    """
    half = x.shape[-1] // 2
    angles = positions[:, None] * _ROTARY_BASE ** (-jnp.arange(half) / half)[None, :]
    cos, sin = jnp.cos(angles)[None, :, None, :], jnp.sin(angles)[None, :, None, :]
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def distance_count(length: int, *, causal: bool) -> int:
    """The number of distances query - key in an input; causal attention has none below 0."""
    return length if causal else 2 * length - 1


def distance_rows(
    queries: Sequence[int], length: int, distances: int, *, causal: bool
) -> Int[Array, "q k"]:
    """The row of each (query, key) in a table of vectors by distance.

    Row 0 holds the smallest distance query - key: 0 if attention is causal, else
    1 - the task's positions. Keys that a causal query cannot see get row 0. A distance that the
    table lacks gets a row outside the table, for which ``lookup`` gives NaN.

    Args:
        queries: positions of the queries.
        length: the number of positions of the input.
        distances: the number of rows of the table.
        causal: whether attention is causal.
    """
    apart = jnp.array(tuple(queries))[:, None] - jnp.arange(length)[None, :]
    return jnp.maximum(apart, 0) if causal else apart + distances // 2


def by_distance(
    W: Float[Array, "h distance e"], rows: Int[Array, "q k"]
) -> Float[Array, "q k h e"]:
    """The vector of each head for each (query, key), given their rows in the table W."""
    return lookup(rows, W.transpose(1, 0, 2))
