"""The first layer's attention on the token table: each (position, token) is projected once, however many examples hold it.

Before the first attention a row of the residual stream depends on its position and token alone, so queries, keys and values are
those of a table of sum_s |alphabet(s)| rows. Examples look them up by products with token indicators: gathers have scatter
gradients, which are slow on a CPU. A query whose token is always the same has its scores on the table too.

Dimension letters as in ``transformer``; n rows of the table.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.contracts import Inputs


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
    sizes = [end - first for first, end in inputs.alphabet]
    width = heads * d_head
    plain = examples * d_model * width * (2 * len(sizes) + len(queries))
    fixed = all(sizes[q] == 1 for q in queries)
    looked_up = [width + (heads if fixed else width) for _ in sizes]
    table = 3 * sum(sizes) * d_model * width + examples * sum(n * w for n, w in zip(sizes, looked_up, strict=True) if n > 1)
    table += 0 if fixed else examples * sum(sizes[q] * (width + d_model) for q in queries)
    return plain, table


def project_on_table(
    params: Any, tokens: Int[Array, "b s"], inputs: Inputs, queries: Sequence[int], scale: float, project: Project
) -> Projected:
    """The first layer's stream, scores and values by way of the table; NaN for an example that leaves the alphabet."""
    W_E, positional = params["embed"]["W_E"], params.get("pos_embed")
    tables = [W_E[first:end] for first, end in inputs.alphabet]
    if positional is not None:
        tables = [table + positional["W_pos"][s][None] for s, table in enumerate(tables)]
    sizes = [len(table) for table in tables]
    places = jnp.concatenate([jnp.full(n, s) for s, n in enumerate(sizes)])
    q, k, v = (_by_position(x, sizes) for x in project(jnp.concatenate(tables), places))
    seen = [_indicator(tokens[:, s], first, end) for s, (first, end) in enumerate(inputs.alphabet)]
    scores = [[_scores(q[i], k[j], seen[i], seen[j]) / scale for j in range(len(sizes))] for i in queries]
    return Projected(
        jnp.stack([seen[i] @ tables[i] for i in queries], axis=1),
        jnp.stack([jnp.stack(row, axis=-1) for row in scores], axis=2),
        tuple(_looked_up(seen[j], v[j]) for j in range(len(sizes))),
    )


def _by_position(x: Float[Array, "n h e"], sizes: Sequence[int]) -> list[Float[Array, "m h e"]]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [x[end - n : end] for n, end in zip(sizes, ends, strict=True)]


def _indicator(tokens: Int[Array, " b"], first: int, end: int) -> Float[Array, "b m"]:
    """1 at the token's row, NaN throughout for a token that can't stand there."""
    known = (tokens >= first) & (tokens < end)
    return jnp.where(known[:, None], tokens[:, None] == jnp.arange(first, end)[None, :], jnp.nan).astype(jnp.float32)


def _looked_up(seen: Float[Array, "b m"], table: Float[Array, "m h e"]) -> Float[Array, "b h e"]:
    m, h, e = table.shape
    return (seen @ table.reshape(m, h * e)).reshape(-1, h, e)


def _scores(
    q: Float[Array, "m h e"], k: Float[Array, "n h e"], seen_q: Float[Array, "b m"], seen_k: Float[Array, "b n"]
) -> Float[Array, "b h"]:
    """q . k of each example: on the table where the query is always the same."""
    if len(q) == 1:
        return seen_q * (seen_k @ jnp.einsum("he,nhe->nh", q[0], k))
    return (_looked_up(seen_q, q) * _looked_up(seen_k, k)).sum(axis=-1)


def mix(pattern: Float[Array, "b h q k"], values: Sequence[Float[Array, "b h e"]]) -> Float[Array, "b q h e"]:
    """sum over keys of pattern v."""
    rows = pattern.transpose(0, 2, 1, 3)
    return sum((rows[..., j, None] * v[:, None] for j, v in enumerate(values)), start=jnp.zeros(()))  # pyright: ignore[reportReturnType]
