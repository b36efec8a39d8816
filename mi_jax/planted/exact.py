"""The exact losses and attention of hand-made attention-only networks, in float64.

The facts that a planted network states come from here, not from closed forms that hold for strong
heads alone: attention that misses its match writes something too.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mi_jax.planted.network import Flat
from mi_jax.tasks import RepeatedSequences

Head = tuple[int, int]
"""(layer, head)."""


class ExactPass(NamedTuple):
    """The forward pass of one sequence. The last of its positions has no answer and is left out.

    Attributes:
        losses: cross-entropy of each answer in nats, [position].
        patterns: attention by (layer, head), [query key].
    """

    losses: Float[np.ndarray, " position"]
    patterns: dict[Head, Float[np.ndarray, "query key"]]


def exact_pass(
    flat: Flat,
    task: RepeatedSequences,
    *,
    zeroed_heads: Collection[Head] = (),
    zeroed_columns: Collection[int] = (),
) -> ExactPass:
    """The forward pass of an attention-only network, in float64, on one repeated sequence.

    One sequence stands for all: the planted weights treat all symbols alike, and the tokens of a
    half are all different, so renaming the symbols turns each sequence into any other.

    Args:
        flat: the weights by dotted name, of a network without MLPs, norms and biases whose scores
            are not scaled.
        task: the task.
        zeroed_heads: (layer, head) of the heads whose output is set to 0.
        zeroed_columns: columns of the residual stream that are set to 0 after layer 0.

    Returns:
        The losses and the attention patterns.
    """
    w = {name: value.astype(np.float64) for name, value in flat.items()}
    half = np.arange(task.length)
    tokens = np.concatenate([[task.symbols], half, half])
    x = w["embed.W_E"][tokens] + w["pos_embed.W_pos"]
    patterns: dict[Head, np.ndarray] = {}
    layer = 0
    while f"blocks.{layer}.attn.W_Q" in w:
        W_Q, W_K, W_V, W_O = (w[f"blocks.{layer}.attn.W_{letter}"] for letter in "QKVO")
        added = np.zeros_like(x)
        for head in range(len(W_Q)):
            pattern = _causal_softmax((x @ W_Q[head]) @ (x @ W_K[head]).T)
            patterns[layer, head] = pattern[:-1, :-1]
            if (layer, head) not in zeroed_heads:
                added += pattern @ x @ W_V[head] @ W_O[head]
        x = x + added
        if layer == 0:
            x[:, list(zeroed_columns)] = 0
        layer += 1
    return ExactPass(_cross_entropy((x @ w["unembed.W_U"])[:-1], tokens[1:]), patterns)


def _causal_softmax(scores: Float[np.ndarray, "query key"]) -> Float[np.ndarray, "query key"]:
    """Softmax over the keys up to each query."""
    past = np.where(np.triu(np.ones_like(scores, bool), 1), -np.inf, scores)
    weights = np.exp(past - past.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _cross_entropy(
    logits: Float[np.ndarray, "position class"], answers: Int[np.ndarray, " position"]
) -> Float[np.ndarray, " position"]:
    """log(1 + sum over the wrong classes of e^(their logit - the right one)), in nats."""
    # The wrong classes alone, so that a loss of e^-20 keeps its digits.
    margins = logits - np.take_along_axis(logits, answers[:, None], axis=1)
    np.put_along_axis(margins, answers[:, None], -np.inf, axis=1)
    return np.log1p(np.exp(margins).sum(axis=1))
