"""Hand-made attention heads, in a residual stream whose columns have names.

Every head is one-hot: a query has a coordinate for each thing it can look for, and a key has a
coordinate for each thing by which it can be found. Scores are not scaled
(``attention_scale=1``), so a match is worth exactly ``beta``.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from mi_jax.models import Transformer
from mi_jax.planted.network import Flat
from mi_jax.tasks import RepeatedSequences

Columns = Mapping[str, Int[np.ndarray, " column"]]
"""Columns of the residual stream, by the name of what they hold."""


def columns(sizes: Mapping[str, int]) -> Columns:
    """Lays out named parts of the residual stream one after another.

    Args:
        sizes: by name, the number of columns.

    Returns:
        By name, the indices of the columns.

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
    """Settings of a transformer without MLPs and norms.

    Each head is large enough to have a coordinate for every token and for every position.

    Args:
        task: the task.
        parts: the columns of the residual stream.
        layers: the number of layers.
        heads: heads per layer.
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
    """Weights of the network without heads.

    Tokens and positions are one-hot in their columns. The logits are the contents of the tokens'
    columns, plus those of the part ``answer``.

    Args:
        task: the task.
        parts: the columns of the residual stream.
        settings: the settings of the transformer.
        answer: the name of the part that holds the answer.

    Returns:
        Weights by dotted name, those of the heads zero.
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
    flat: Flat, parts: Columns, head: tuple[int, int], beta: float, back: int, into: str
) -> None:
    """Makes a head that attends from position i to i - ``back`` and writes the token there.

    The first ``back`` positions attend to the start token, since nothing stands so far back.

    Args:
        flat: the weights, changed in place.
        parts: the columns of the residual stream.
        head: (layer, head) of the head to make.
        beta: the score of the match.
        back: how many positions to look back.
        into: the name of the part to write to.
    """
    W_Q, W_K, W_V, W_O = _weights(flat, head)
    position, token = parts["position"], parts["token"]
    keys = np.arange(len(position) - 1)
    W_K[position[keys], keys] = 1
    W_Q[position, np.maximum(np.arange(len(position)) - back, 0)] = beta
    symbols = np.arange(len(token))
    W_V[token, symbols] = 1
    W_O[symbols, parts[into]] = 1


def induction_head(
    flat: Flat,
    parts: Columns,
    head: tuple[int, int],
    beta: float,
    gain: float,
    *,
    into: str = "token",
    flag_raised: str | None = None,
    flag_read: str | None = None,
) -> None:
    """Makes a head that attends to where the present token is the previous one.

    The head writes ``gain`` times the token it finds. The score of the start token is always
    beta / 2: where nothing matches, the head attends to the start token and writes nothing.

    Args:
        flat: the weights, changed in place.
        parts: the columns of the residual stream.
        head: (layer, head) of the head to make.
        beta: the score of a match.
        gain: the factor on the token that is written.
        into: the name of the part to write to.
        flag_raised: the name of a part of one column, to which the head adds its attention to
            tokens other than the start token.
        flag_read: the name of a part of one column, whose content times beta is added to the score
            of the start token.
    """
    W_Q, W_K, W_V, W_O = _weights(flat, head)
    start, symbols = len(parts["token"]) - 1, np.arange(len(parts["token"]) - 1)
    tokens, rest = parts["token"][symbols], parts["token"][start]
    W_Q[tokens, symbols] = 1
    W_K[parts["previous"][symbols], symbols] = beta
    W_K[rest, symbols] = beta / 2
    W_V[tokens, symbols] = 1
    W_O[symbols, parts[into][symbols]] = gain
    if flag_raised is not None:
        W_O[symbols, parts[flag_raised][0]] = 1
    if flag_read is not None:
        W_Q[parts[flag_read][0], start] = 1
        W_K[rest, start] = beta


def _weights(flat: Flat, head: tuple[int, int]) -> tuple[Float[np.ndarray, "i o"], ...]:
    """W_Q, W_K, W_V and W_O of a head, as views into ``flat``."""
    layer, index = head
    return tuple(flat[f"blocks.{layer}.attn.W_{x}"][index] for x in "QKVO")
