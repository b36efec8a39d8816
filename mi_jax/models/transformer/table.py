"""The first layer's attention on the token table.

Before the first attention, a row of the residual stream depends on its position and token alone. So
each (position, token) is projected once, in a table of sum over s of |alphabet(s)| rows, and
examples look their queries, keys and values up. Where the query's token is always the same, its
scores are tabulated too.

Dimension letters as in ``forward``; n and m count rows of the table.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.contracts import Inputs
from mi_jax.models.products import lookup
from mi_jax.models.taps import ByPosition


class Projected(NamedTuple):
    """The first layer's residual stream, scores and values, before the mask."""

    stream: Float[Array, "b q d"]
    """The residual stream at the queries."""
    scores: Float[Array, "b h q k"]
    """The scaled attention scores."""
    values: tuple[Float[Array, "b h e"], ...]
    """The values, one array per key position."""


Project = Callable[[Float[Array, "n d"], Int[Array, " n"]], tuple[Float[Array, "n h e"], ...]]
"""(rows of the residual stream, their positions) -> queries, keys and values of each row."""


def multiply_adds(
    inputs: Inputs, examples: int, queries: Sequence[int], d_model: int, heads: int, d_head: int
) -> tuple[int, int]:
    """Counts the multiply-adds of the first layer's projections to q, k and v.

    Args:
        inputs: the task's inputs.
        examples: the number of examples of a batch.
        queries: the positions of the queries.
        d_model: the width of the residual stream.
        heads: the number of heads.
        d_head: the size of a head.

    Returns:
        The count for projecting every example, and the count for projecting the table.
    """
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
    relative_keys: Float[Array, "s s h e"] | None = None,
) -> Projected:
    """Computes the first layer's stream, scores and values on the token table.

    A token outside its position's alphabet gives NaN.

    Args:
        params: the model's parameters.
        tokens: the batch.
        inputs: the task's inputs, whose alphabet makes the table.
        queries: the positions of the queries.
        scale: divisor of the scores.
        project: projects rows of the residual stream to q, k and v.
        tap: acts on the embedded tokens, if one listens to ``embed``.
        relative_keys: vectors to add to the keys, by query and key position, if positions are
            relative.
    """
    W_E, positional = params["embed"]["W_E"], params.get("pos_embed")
    tables = [W_E[first:end] for first, end in inputs.alphabet]
    if tap is not None:
        tables = [tap.function(table, s) for s, table in enumerate(tables)]
    if positional is not None:
        tables = [table + positional["W_pos"][s][None] for s, table in enumerate(tables)]
    sizes = [len(table) for table in tables]
    positions = jnp.concatenate([jnp.full(n, s) for s, n in enumerate(sizes)])
    q, k, v = (_by_position(x, sizes) for x in project(jnp.concatenate(tables), positions))
    rows = [tokens[:, s] - first for s, (first, _) in enumerate(inputs.alphabet)]
    keys = [
        [
            k_j if relative_keys is None else k_j + relative_keys[i, j][None]
            for j, k_j in enumerate(k)
        ]
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
    """Cuts the rows of a table into those of each position."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [x[end - n : end] for n, end in zip(sizes, ends, strict=True)]


def _scores(
    q: Float[Array, "m h e"],
    k: Float[Array, "n h e"],
    rows_q: Int[Array, " b"],
    rows_k: Int[Array, " b"],
) -> Float[Array, "b h"]:
    """q . k of each example, given its rows in the tables of queries and keys."""
    if len(q) == 1:
        # One query for all examples: q . k is computed once per key. A token other than the only
        # one still has to give NaN.
        seen = jnp.where(rows_q == 0, 1.0, jnp.nan)[:, None]
        return seen * lookup(rows_k, (k * q).sum(axis=-1))
    return (lookup(rows_q, q) * lookup(rows_k, k)).sum(axis=-1)


def mix(
    pattern: Float[Array, "b h q k"], values: Sequence[Float[Array, "b h e"]]
) -> Float[Array, "b q h e"]:
    """Sum over keys of pattern times v.

    Written out by query and key, since both axes are short wherever the table is used.

    Args:
        pattern: the attention pattern.
        values: the values, one array per key position.
    """
    b, h, queries, _ = pattern.shape
    e = values[0].shape[-1]
    flat = [v.reshape(b, h * e) for v in values]
    rows = [
        sum(jnp.repeat(pattern[:, :, i, j], e, axis=1) * v for j, v in enumerate(flat))
        for i in range(queries)
    ]
    return jnp.stack(rows, axis=1).reshape(b, queries, h, e)
