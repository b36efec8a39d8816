"""The first layer's attention on the token table: each (position, token) is projected once, however
many examples hold it.

Before the first attention a row of the residual stream depends on its position and token alone, so
queries, keys and values are those of a table of sum_s |alphabet(s)| rows, which examples look up. A
query whose token is always the same has its scores on the table too.

Dimension letters as in ``transformer``; n rows of the table.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.contracts import Inputs
from mi_jax.models.products import lookup
from mi_jax.models.taps import ByPosition


class Projected(NamedTuple):
    """The first layer's attention before its mask."""

    stream: Float[Array, "b q d"]
    """The residual stream at the queries."""
    scores: Float[Array, "b h q k"]
    values: tuple[Float[Array, "b h e"], ...]
    """By key position."""


Project = Callable[[Float[Array, "n d"], Int[Array, " n"]], tuple[Float[Array, "n h e"], ...]]
"""(rows of the residual stream, their positions) -> (q, k, v) of each."""


def multiply_adds(
    inputs: Inputs, examples: int, queries: Sequence[int], d_model: int, heads: int, d_head: int
) -> tuple[int, int]:
    """Multiply-adds of the first layer's projections: (of every example, on the table)."""
    rows, width = sum(end - first for first, end in inputs.alphabet), heads * d_head
    return (
        examples * d_model * width * (2 * len(inputs.alphabet) + len(queries)),
        3 * rows * d_model * width,
    )


def project_on_table(
    params: Any,
    tokens: Int[Array, "b s"],
    inputs: Inputs,
    queries: Sequence[int],
    scale: float,
    project: Project,
    tap: ByPosition | None = None,
    apart: Float[Array, "s s h e"] | None = None,
) -> Projected:
    """The first layer's stream, scores and values by way of the table; NaN for an example that
    leaves the alphabet.

    ``apart`` [query key head d_head] is what is added to the keys that a query sees, where that
    depends on both positions.
    """
    W_E, positional = params["embed"]["W_E"], params.get("pos_embed")
    tables = [W_E[first:end] for first, end in inputs.alphabet]
    if tap is not None:
        tables = [tap.function(table, s) for s, table in enumerate(tables)]
    if positional is not None:
        tables = [table + positional["W_pos"][s][None] for s, table in enumerate(tables)]
    sizes = [len(table) for table in tables]
    places = jnp.concatenate([jnp.full(n, s) for s, n in enumerate(sizes)])
    q, k, v = (_by_position(x, sizes) for x in project(jnp.concatenate(tables), places))
    rows = [tokens[:, s] - first for s, (first, _) in enumerate(inputs.alphabet)]
    keys = [
        [k_j if apart is None else k_j + apart[i, j][None] for j, k_j in enumerate(k)]
        for i in queries
    ]
    scores = [
        [_scores(q[i], k_j, rows[i], rows[j]) / scale for j, k_j in enumerate(seen)]
        for i, seen in zip(queries, keys, strict=True)
    ]
    return Projected(
        jnp.stack([lookup(rows[i], tables[i]) for i in queries], axis=1),
        jnp.stack([jnp.stack(row, axis=-1) for row in scores], axis=2),
        tuple(lookup(rows[j], v[j]) for j in range(len(sizes))),
    )


def _by_position(x: Float[Array, "n h e"], sizes: Sequence[int]) -> list[Float[Array, "m h e"]]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [x[end - n : end] for n, end in zip(sizes, ends, strict=True)]


def _scores(
    q: Float[Array, "m h e"],
    k: Float[Array, "n h e"],
    rows_q: Int[Array, " b"],
    rows_k: Int[Array, " b"],
) -> Float[Array, "b h"]:
    """q . k of each example: on the table where the query is always the same."""
    if len(q) == 1:
        seen = jnp.where(rows_q == 0, 1.0, jnp.nan)[:, None]
        return seen * lookup(rows_k, (k * q).sum(axis=-1))
    return (lookup(rows_q, q) * lookup(rows_k, k)).sum(axis=-1)


def mix(
    pattern: Float[Array, "b h q k"], values: Sequence[Float[Array, "b h e"]]
) -> Float[Array, "b q h e"]:
    """sum over keys of pattern v."""
    b, h, queries, _ = pattern.shape
    e = values[0].shape[-1]
    flat = [v.reshape(b, h * e) for v in values]
    rows = [
        sum(jnp.repeat(pattern[:, :, i, j], e, axis=1) * v for j, v in enumerate(flat))
        for i in range(queries)
    ]
    return jnp.stack(rows, axis=1).reshape(b, queries, h, e)
