"""What each attention head does on sequences that repeat themselves: heads by what they attend to,
and by what they are worth.

Patterns are those of the split "test", at the positions that are read; dims (layer, head).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, batch_loss, mean_loss
from mi_jax.measures.evaluation import batch, outputs, split_concept, split_site

_SPLIT = "test"
_HEAD = ("layer", "head")
OLSSON = "arXiv 2209.11895"
_NEEDS = {
    "roles": ("patterns",),
    "ground_truth": ("previous_occurrence",),
    "splits": (_SPLIT,),
    "source": OLSSON,
}


def _patterns(params: Params, context: Context) -> Float[Array, "layer batch head query key"]:
    """The patterns at the positions that are read; the last layer holds no others."""
    sites = context.model.roles.patterns
    values = [split_site(params, context, site, _SPLIT) for site in sites]
    return jnp.stack([*(value[:, :, np.array(context.read)] for value in values[:-1]), values[-1]])


def _attended(
    params: Params,
    context: Context,
    target: Bool[Array, "batch query key"],
    asked: Bool[Array, "batch query"],
) -> Float[Array, "layer head"]:
    """The mean over the queries asked of what each head attends to their targets."""
    seen = jnp.where(target[None, :, None], _patterns(params, context), 0).sum(axis=-1)
    return jnp.where(asked[None, :, None], seen, 0).sum(axis=(1, 3)) / asked.sum()


def _keys(context: Context) -> Int[Array, "1 1 key"]:
    return jnp.arange(context.inputs.positions)[None, None, :]


def _previous(context: Context) -> Int[Array, "batch query"]:
    return split_concept(context, "previous_occurrence", _SPLIT)


def previous_token_attention() -> Measure:
    """What each head attends from each position i to i - 1, mean over the sequences; NaN at the
    first and where none is read.

    Where every other score is 0 and that of the previous token beta, it is e^beta / (e^beta + i).
    """

    def function(params: Params, context: Context) -> Float[Array, "layer head query"]:
        queries = np.array(context.read)
        seen = _patterns(params, context)[
            :, :, :, np.arange(len(queries)), np.maximum(queries - 1, 0)
        ].mean(axis=1)
        seen = jnp.where(queries[None, None] > 0, seen, jnp.nan)
        return (
            jnp.full((*seen.shape[:2], context.inputs.positions), jnp.nan)
            .at[:, :, queries]
            .set(seen)
        )

    return Measure("previous_token_attention", function, (*_HEAD, "query"), **_NEEDS)


def previous_token_score() -> Measure:
    """The mean of A[i, i - 1] over the sequences and all positions i but the first."""

    def function(params: Params, context: Context) -> Float[Array, "layer head"]:
        queries = jnp.array(context.read)[None]
        asked = jnp.broadcast_to(queries > 0, _previous(context).shape)
        return _attended(
            params, context, (_keys(context) == queries[..., None] - 1) & asked[..., None], asked
        )

    return Measure("previous_token_score", function, _HEAD, **_NEEDS)


def duplicate_token_score() -> Measure:
    """The mean of A[i, j] over positions i whose token stood at j before, the last such j."""
    return _after_previous("duplicate_token_score", 0)


def induction_score() -> Measure:
    """The mean of A[i, j + 1] over positions i whose token stood at j before, the last such j: the
    induction stripe.
    """
    return _after_previous("induction_score", 1)


def _after_previous(name: str, offset: int) -> Measure:
    def function(params: Params, context: Context) -> Float[Array, "layer head"]:
        previous = _previous(context)
        return _attended(
            params, context, _keys(context) == previous[..., None] + offset, previous >= 0
        )

    return Measure(name, function, _HEAD, **_NEEDS)


def prefix_matching_score() -> Measure:
    """What a head attends from a token that stood before to all tokens that followed its earlier
    copies, in the mean.

    The erratum's version, sums over earlier copies (arXiv 2209.11895): where each has one it is the
    induction score.
    """

    def function(params: Params, context: Context) -> Float[Array, "layer head"]:
        tokens, queries = jnp.asarray(batch(context, _SPLIT).inputs), np.array(context.read)
        copies = tokens[:, queries, None] == tokens[:, None, :]
        earlier = copies & (jnp.arange(tokens.shape[1])[None, None] < queries[None, :, None])
        followed = jnp.pad(earlier, ((0, 0), (0, 0), (1, 0)))[..., :-1]
        return _attended(params, context, followed, earlier.any(axis=-1))

    return Measure("prefix_matching_score", function, _HEAD, **_NEEDS)


def in_context() -> Measure:
    """Loss where induction tells the answer, and where it can't: means over those positions, with
    weights or not.

    ``first_half_loss``: positions 0 to L - 1, whose answers are tokens that haven't been there.
    ``repeated_loss``: those of the concept ``repeated``. ``in_context_score``: loss at the last
    position minus loss at the position L / 2, rounded down, by which the sequence has not yet begun
    to repeat itself; negative where context helps (tokens 500 and 50 in arXiv 2209.11895).
    """
    names = ("first_half_loss", "repeated_loss", "in_context_score")

    def function(params: Params, context: Context) -> dict[str, Scalar]:
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
    return Measure("in_context", function, dict.fromkeys(names, ()), units="loss", **needs)


def head_ablation_loss() -> Measure:
    """The run's test loss with each head's pattern set to zero, so that nothing but a bias is left
    of it.
    """

    def function(params: Params, context: Context) -> Float[Array, "layer head"]:
        sites = context.model.roles.patterns
        heads = _patterns(params, context).shape[2]
        kept = 1 - jnp.eye(len(sites) * heads).reshape(-1, len(sites), heads)
        losses = jax.lax.map(lambda mask: loss_with_heads(params, context, mask), kept)
        return losses.reshape(len(sites), heads)

    return Measure("head_ablation_loss", function, _HEAD, units="loss", **{**_NEEDS, "source": ""})


def loss_with_heads(params: Params, context: Context, kept: Float[Array, "layer head"]) -> Scalar:
    """The test loss with each head's pattern multiplied by a number of its own: 1 keeps it, 0 takes
    it out.
    """
    examples, sites = batch(context, _SPLIT), context.model.roles.patterns

    def scaled(layer: int) -> object:
        return lambda pattern: pattern * kept[layer][None, :, None, None]

    taps = {site: scaled(layer) for layer, site in enumerate(sites)}
    out = context.model.apply(params, examples.inputs, taps=taps, positions=context.read)
    return batch_loss(context.loss, out, examples)
