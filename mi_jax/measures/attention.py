"""Frequencies of the attention scores, and the mean attention pattern (arXiv 2301.05217, 4.1)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params
from mi_jax.basics.fourier import fourier_basis, frequencies
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import shared, table_site
from mi_jax.measures.fourier import SOURCE
from mi_jax.measures.neurons import centred_units, shares_of

_NEEDS = {"roles": ("attention",), "ground_truth": ("table", "residues"), "source": SOURCE}


@shared
def score_shares(params: Params, context: Context) -> Float[Array, "layer head frequency"]:
    """Share of the variance of each head's score that one frequency of the first token explains.

    The score is the one of the read position for the first token of the pair, over all pairs. In a
    network of one layer whose read position holds a constant token, the score is a function of that
    token only. A frequency explains the parts along cos and sin of 2 pi k a / p.
    """
    p = context.inputs.classes
    key = context.inputs.varied[0]
    scores = jnp.stack(
        [site[..., key] for site in _read_rows(params, context, context.model.roles.attention)]
    )
    around, power = (
        jnp.stack(x) for x in zip(*(centred_units(layer) for layer in scores), strict=True)
    )
    along = jnp.einsum("ia,labh->ilh", fourier_basis(p)[1:], around) / jnp.sqrt(p)
    shares = shares_of(along, power).transpose(1, 2, 0)
    layers, heads = shares.shape[:2]
    padded = jnp.pad(shares, ((0, 0), (0, 0), (0, 2 * frequencies(p) - (p - 1))))
    return padded.reshape(layers, heads, frequencies(p), 2).sum(axis=-1)


def attention_fve() -> Measure:
    """Share of the variance of each head's score that its best frequency explains.

    max_k of ``score_shares``: the score of the read position for the first token, over all pairs.
    Near 1 a head attends by a single frequency (FVE: fraction of variance explained).

    Returns:
        A Measure with ``attention_fve`` of dims (layer, head), shares from 0 to 1; NaN for a head
        whose score never varies. It needs the role ``attention`` and a task on all pairs of
        residues.
    """

    def _attention_fve(params: Params, context: Context) -> Float[Array, "layer head"]:
        return score_shares(params, context).max(axis=-1)

    return Measure("attention_fve", _attention_fve, ("layer", "head"), **_NEEDS)


def attention_frequency() -> Measure:
    """Frequency that explains most of the variance of each head's score.

    argmax_k of ``score_shares``; read it with ``attention_fve``, which says how much the frequency
    explains.

    Returns:
        A Measure with ``attention_frequency`` of dims (layer, head), integers from 1 to p // 2; 0
        for a head whose score never varies. It needs the role ``attention`` and a task on all pairs
        of residues.
    """

    def _attention_frequency(params: Params, context: Context) -> Int[Array, "layer head"]:
        shares = score_shares(params, context)
        return jnp.where(jnp.isfinite(shares).all(axis=-1), 1 + shares.argmax(axis=-1), 0)

    return Measure("attention_frequency", _attention_frequency, ("layer", "head"), **_NEEDS)


def attention_pattern() -> Measure:
    """Attention of the read position to each position, averaged over all pairs.

    Near 1 / 2 at both tokens of the pair, a head takes them in equally, whatever they are.

    Returns:
        A Measure with ``attention_pattern`` of dims (layer, head, key), attention weights that sum
        to 1 over the keys if the model's attention does. It needs the role ``patterns`` and a task
        on all pairs.
    """

    def _attention_pattern(params: Params, context: Context) -> Float[Array, "layer head key"]:
        patterns = _read_rows(params, context, context.model.roles.patterns)
        return jnp.stack([pattern.mean(axis=(0, 1)) for pattern in patterns])

    return Measure(
        "attention_pattern",
        _attention_pattern,
        ("layer", "head", "key"),
        roles=("patterns",),
        ground_truth=("table",),
    )


def _read_rows(
    params: Params, context: Context, sites: tuple[str, ...]
) -> list[Float[Array, "token token_other head key"]]:
    """Scores or patterns of the read position, by layer."""
    # The last layer computes the read position only, so its row has index 0.
    rows = [context.read[0]] * (len(sites) - 1) + [0]
    return [
        table_site(params, context, site)[:, :, :, row]
        for site, row in zip(sites, rows, strict=True)
    ]
