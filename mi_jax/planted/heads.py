"""Attention heads made by hand, in a residual stream whose columns have names.

Every head is one-hot: a query has a coordinate for each thing it may look for, a key for each thing
it is found by. Scores are not scaled (``attention_scale=1``), so that a match is worth exactly
``beta``.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from mi_jax.models import Transformer
from mi_jax.planted.network import Flat
from mi_jax.tasks import RepeatedSequences

Columns = Mapping[str, Int[np.ndarray, " column"]]
"""By what they hold, the columns of the residual stream."""


def columns(sizes: Mapping[str, int]) -> Columns:
    """Parts of the residual stream one after the other.

    Example:
        >>> {name: part.tolist() for name, part in columns({"token": 3, "position": 2}).items()}
        {'token': [0, 1, 2], 'position': [3, 4]}
    """
    ends = np.cumsum([0, *sizes.values()])
    return {
        name: np.arange(first, end)
        for name, (first, end) in zip(sizes, pairwise(ends), strict=True)
    }


def attention_only(task: RepeatedSequences, parts: Columns, layers: int, heads: int) -> Transformer:
    """The settings of a transformer without MLPs and norms; a head has room for every token and
    every position.
    """
    return Transformer(
        layers=layers,
        d_model=sum(map(len, parts.values())),
        heads=heads,
        d_head=max(task.inputs.vocabulary, task.inputs.positions - 1),
        d_mlp=0,
        attention_scale=1.0,
        output_vocabulary=task.symbols,
    )


def embedded(
    task: RepeatedSequences, parts: Columns, settings: Transformer, answer: str = "token"
) -> Flat:
    """The network without heads: tokens and positions are one-hot in their columns, logits are what
    the tokens' columns hold.

    Args:
        answer: the part that holds the answer, added to the logits beside the tokens' own columns.
    """
    flat = {
        name: np.zeros(shape, np.float32) for name, shape in settings.shapes(task.inputs).items()
    }
    flat["embed.W_E"][np.arange(task.symbols + 1), parts["token"]] = 1
    flat["pos_embed.W_pos"][np.arange(task.inputs.positions), parts["position"]] = 1
    symbols = np.arange(task.symbols)
    for part in {"token", answer}:
        flat["unembed.W_U"][parts[part][symbols], symbols] = 1
    return flat


def look_back(
    flat: Flat, parts: Columns, place: tuple[int, int], beta: float, back: int, into: str
) -> None:
    """The head at (layer, head) = ``place`` attends from i to i - ``back`` by score beta, and
    writes the token it finds there.

    From the first positions, which have nothing so far back, it attends to the start token.
    """
    W_Q, W_K, W_V, W_O = _weights(flat, place)
    position, token = parts["position"], parts["token"]
    found = np.arange(len(position) - 1)
    W_K[position[found], found] = 1
    W_Q[position, np.maximum(np.arange(len(position)) - back, 0)] = beta
    symbols = np.arange(len(token))
    W_V[token, symbols] = 1
    W_O[symbols, parts[into]] = 1


def induction_head(
    flat: Flat,
    parts: Columns,
    place: tuple[int, int],
    beta: float,
    gain: float,
    *,
    into: str = "token",
    raises: str | None = None,
    heeds: str | None = None,
) -> None:
    """The head at ``place`` attends to where the present token is the previous one, and writes
    ``gain`` times the token there.

    The start token's score is always beta / 2: where nothing matches the head rests there, and
    writes nothing.

    Args:
        raises: a part of one column, to which the head adds the share of its attention that doesn't
            rest.
        heeds: a part of one column; what it holds, times beta, is added to the start token's score.
    """
    W_Q, W_K, W_V, W_O = _weights(flat, place)
    start, symbols = len(parts["token"]) - 1, np.arange(len(parts["token"]) - 1)
    tokens, rest = parts["token"][symbols], parts["token"][start]
    W_Q[tokens, symbols] = 1
    W_K[parts["previous"][symbols], symbols] = beta
    W_K[rest, symbols] = beta / 2
    W_V[tokens, symbols] = 1
    W_O[symbols, parts[into][symbols]] = gain
    if raises is not None:
        W_O[symbols, parts[raises][0]] = 1
    if heeds is not None:
        W_Q[parts[heeds][0], start], W_K[rest, start] = 1, beta


def _weights(flat: Flat, place: tuple[int, int]) -> tuple[Float[np.ndarray, "i o"], ...]:
    layer, head = place
    return tuple(flat[f"blocks.{layer}.attn.W_{x}"][head] for x in "QKVO")
