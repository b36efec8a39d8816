"""Attention heads on sequences that repeat themselves: their attention, and the loss without
them.

Patterns are those of the split "test" at the read positions, averaged over its sequences.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, batch_loss, mean_loss
from mi_jax.measures.evaluation import batch, outputs, split_site, split_truth

_SPLIT = "test"
_HEAD = ("layer", "head")
_SOURCE = "arXiv 2209.11895"
_NEEDS = {
    "roles": ("patterns",),
    "ground_truth": ("previous_occurrence",),
    "splits": (_SPLIT,),
    "source": _SOURCE,
}


def _patterns(params: Params, context: Context) -> Float[Array, "layer batch head query key"]:
    """Patterns of every layer at the read positions."""
    sites = context.model.roles.patterns
    values = [split_site(params, context, site, _SPLIT) for site in sites]
    # The last layer computes the read positions only.
    return jnp.stack([*(value[:, :, np.array(context.read)] for value in values[:-1]), values[-1]])


def _mean_attention(
    params: Params,
    context: Context,
    target: Bool[Array, "batch query key"],
    counted: Bool[Array, "batch query"],
) -> Float[Array, "layer head"]:
    """Attention of each head to the target keys of a query, averaged over the counted queries."""
    seen = jnp.where(target[None, :, None], _patterns(params, context), 0).sum(axis=-1)
    return jnp.where(counted[None, :, None], seen, 0).sum(axis=(1, 3)) / counted.sum()


def _keys(context: Context) -> Int[Array, "1 1 key"]:
    return jnp.arange(context.inputs.positions)[None, None, :]


def _previous(context: Context) -> Int[Array, "batch query"]:
    """Last earlier position with the token of each query; -1 if there is none."""
    return split_truth(context, "previous_occurrence", _SPLIT)


def previous_token_attention() -> Measure:
    """Attention of each head from each position i to position i - 1.

    A head that attends with scores beta to the previous token and 0 elsewhere has
    e^beta / (e^beta + i). 1 marks a previous-token head at that position (arXiv 2209.11895).

    Returns:
        A Measure with ``previous_token_attention`` of dims (layer, head, query), attention weights
        averaged over the sequences; NaN at the first position and where no answer is read. It needs
        the role ``patterns`` and a task on repeated sequences.
    """

    def _previous_token_attention(
        params: Params, context: Context
    ) -> Float[Array, "layer head query"]:
        queries = np.array(context.read)
        rows = np.arange(len(queries))
        seen = _patterns(params, context)[:, :, :, rows, np.maximum(queries - 1, 0)].mean(axis=1)
        seen = jnp.where(queries[None, None] > 0, seen, jnp.nan)
        unread = jnp.full((*seen.shape[:2], context.inputs.positions), jnp.nan)
        return unread.at[:, :, queries].set(seen)

    return Measure(
        "previous_token_attention", _previous_token_attention, (*_HEAD, "query"), **_NEEDS
    )


def previous_token_score() -> Measure:
    """Mean attention A[i, i - 1] of each head, over the sequences and all positions but the first.

    1 marks a head that always attends to the previous token (arXiv 2209.11895).

    Returns:
        A Measure with ``previous_token_score`` of dims (layer, head), from 0 to 1. It needs the
        role ``patterns`` and a task on repeated sequences.
    """

    def _previous_token_score(params: Params, context: Context) -> Float[Array, "layer head"]:
        queries = jnp.array(context.read)[None]
        counted = jnp.broadcast_to(queries > 0, _previous(context).shape)
        target = (_keys(context) == queries[..., None] - 1) & counted[..., None]
        return _mean_attention(params, context, target, counted)

    return Measure("previous_token_score", _previous_token_score, _HEAD, **_NEEDS)


def duplicate_token_score() -> Measure:
    """Mean attention A[i, j] of each head to the last earlier copy j of the token at i.

    The mean is over all positions i whose token has an earlier copy. 1 marks a head that always
    attends to the copy (arXiv 2209.11895).

    Returns:
        A Measure with ``duplicate_token_score`` of dims (layer, head), from 0 to 1. It needs the
        role ``patterns`` and a task on repeated sequences.
    """

    def _duplicate_token_score(params: Params, context: Context) -> Float[Array, "layer head"]:
        return _attention_near_copy(params, context, 0)

    return Measure("duplicate_token_score", _duplicate_token_score, _HEAD, **_NEEDS)


def induction_score() -> Measure:
    """Mean attention A[i, j + 1] of each head, with j the last earlier copy of the token at i.

    Position j + 1 holds the token that followed the copy, which induction would predict. The mean
    is over all positions i whose token has an earlier copy. 1 marks a pure induction head
    (arXiv 2209.11895).

    Returns:
        A Measure with ``induction_score`` of dims (layer, head), from 0 to 1. It needs the role
        ``patterns`` and a task on repeated sequences.
    """

    def _induction_score(params: Params, context: Context) -> Float[Array, "layer head"]:
        return _attention_near_copy(params, context, 1)

    return Measure("induction_score", _induction_score, _HEAD, **_NEEDS)


def _attention_near_copy(
    params: Params, context: Context, offset: int
) -> Float[Array, "layer head"]:
    """Mean attention to the key ``offset`` positions after the last earlier copy of the token."""
    previous = _previous(context)
    target = _keys(context) == previous[..., None] + offset
    return _mean_attention(params, context, target, previous >= 0)


def prefix_matching_score() -> Measure:
    """Mean attention of each head to all tokens that followed earlier copies of its query's token.

    The mean is over all positions whose token has an earlier copy; the attention is summed over the
    copies, as in the erratum of arXiv 2209.11895. With one earlier copy each it equals
    ``induction_score``. 1 marks a pure induction head.

    Returns:
        A Measure with ``prefix_matching_score`` of dims (layer, head), from 0 to 1. It needs the
        role ``patterns`` and a task on repeated sequences.
    """

    def _prefix_matching_score(params: Params, context: Context) -> Float[Array, "layer head"]:
        tokens, queries = jnp.asarray(batch(context, _SPLIT).inputs), np.array(context.read)
        copies = tokens[:, queries, None] == tokens[:, None, :]
        earlier = copies & (jnp.arange(tokens.shape[1])[None, None] < queries[None, :, None])
        followed = jnp.pad(earlier, ((0, 0), (0, 0), (1, 0)))[..., :-1]
        return _mean_attention(params, context, followed, earlier.any(axis=-1))

    return Measure("prefix_matching_score", _prefix_matching_score, _HEAD, **_NEEDS)


def in_context() -> Measure:
    """Losses where induction determines the answer and where it cannot, and the in-context score.

    ``repeated_loss`` below ``first_half_loss`` means that the network uses the repetition.

    Returns:
        A Measure with three scalars, in the units of the run's loss: ``first_half_loss``, the mean
        over positions 0 to L - 1, whose answers have not occurred yet; ``repeated_loss``, the mean
        over the positions of the fact ``repeated``; ``in_context_score``, the loss at the last
        position minus the loss at position L / 2 (rounded down), before the sequence repeats
        itself, which is negative where context helps (tokens 500 and 50 in arXiv 2209.11895).
        Examples count whether or not the task gives them weight. It needs a task on repeated
        sequences.
    """
    names = ("first_half_loss", "repeated_loss", "in_context_score")

    def _in_context(params: Params, context: Context) -> dict[str, Scalar]:
        examples, repeated = batch(context, _SPLIT), context.ground_truth["repeated"]
        each = context.loss(outputs(params, context, _SPLIT), examples.targets)
        half = len(context.read) // 2
        spread = jnp.broadcast_to(repeated[None], each.shape).astype(jnp.float32)
        values = (
            each[:, :half].mean(),
            mean_loss(each, spread),
            (each[:, -1] - each[:, half // 2]).mean(),
        )
        return dict(zip(names, values, strict=True))

    needs = {**_NEEDS, "roles": (), "ground_truth": ("previous_occurrence", "repeated")}
    return Measure("in_context", _in_context, dict.fromkeys(names, ()), units="loss", **needs)


def head_ablation_loss() -> Measure:
    """Test loss of the run with the pattern of one head set to zero, by head.

    Only the biases of the head's output remain (zero ablation). A value above the test loss means
    that the head matters.

    Returns:
        A Measure with ``head_ablation_loss`` of dims (layer, head), in the units of the run's loss.
        It needs the role ``patterns`` and a task on repeated sequences.
    """

    def _head_ablation_loss(params: Params, context: Context) -> Float[Array, "layer head"]:
        sites = context.model.roles.patterns
        heads = _patterns(params, context).shape[2]
        masks = 1 - jnp.eye(len(sites) * heads).reshape(-1, len(sites), heads)
        losses = jax.lax.map(lambda mask: _loss_with_heads(params, context, mask), masks)
        return losses.reshape(len(sites), heads)

    return Measure(
        "head_ablation_loss", _head_ablation_loss, _HEAD, units="loss", **{**_NEEDS, "source": ""}
    )


def _loss_with_heads(params: Params, context: Context, scale: Float[Array, "layer head"]) -> Scalar:
    """Test loss with the pattern of each head scaled: 1 keeps the head, 0 removes it."""
    examples, sites = batch(context, _SPLIT), context.model.roles.patterns

    def scaled(layer: int) -> object:
        return lambda pattern: pattern * scale[layer][None, :, None, None]

    taps = {site: scaled(layer) for layer, site in enumerate(sites)}
    out = context.model.apply(params, examples.inputs, taps=taps, positions=context.read)
    return batch_loss(context.loss, out, examples)
