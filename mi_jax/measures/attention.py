"""What attention depends on: the frequency of each head's scores (arXiv 2301.05217, section 4.1)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params
from mi_jax.basics.fourier import fourier_basis, frequencies
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import shared, table_site
from mi_jax.measures.fourier import SOURCE
from mi_jax.measures.neurons import centred, shares_of

_NEEDS = {"roles": ("attention",), "ground_truth": ("table", "residues"), "source": SOURCE}


@shared
def score_shares(params: Params, context: Context) -> Float[Array, "layer head frequency"]:
    """The share of the variance of each head's score that cos and sin of one frequency of the first
    token explain.

    The score is that of the position that is read, for the first token of the pair, over all pairs.
    In a network of one layer whose read position holds a constant token it is a function of that
    token alone.
    """
    p = context.inputs.classes
    key = context.inputs.varied[0]
    scores = jnp.stack(
        [site[..., key] for site in _read_rows(params, context, context.model.roles.attention)]
    )
    around, power = (jnp.stack(x) for x in zip(*(centred(layer) for layer in scores), strict=True))
    along = jnp.einsum("ia,labh->ilh", fourier_basis(p)[1:], around) / jnp.sqrt(p)
    shares = shares_of(along, power).transpose(1, 2, 0)
    layers, heads = shares.shape[:2]
    padded = jnp.pad(shares, ((0, 0), (0, 0), (0, 2 * frequencies(p) - (p - 1))))
    return padded.reshape(layers, heads, frequencies(p), 2).sum(axis=-1)


def attention_fve() -> Measure:
    """The share of each head's scores that its best frequency explains: see ``score_shares``."""

    def function(params: Params, context: Context) -> Float[Array, "layer head"]:
        return score_shares(params, context).max(axis=-1)

    return Measure("attention_fve", function, ("layer", "head"), **_NEEDS)


def attention_frequency() -> Measure:
    """The frequency that explains most of each head's scores, from 1 to p // 2; 0 where they never
    vary.
    """

    def function(params: Params, context: Context) -> Int[Array, "layer head"]:
        shares = score_shares(params, context)
        return jnp.where(jnp.isfinite(shares).all(axis=-1), 1 + shares.argmax(axis=-1), 0)

    return Measure("attention_frequency", function, ("layer", "head"), **_NEEDS)


def attention_pattern() -> Measure:
    """How much the position that is read attends to each position: the mean pattern over all pairs."""

    def function(params: Params, context: Context) -> Float[Array, "layer head key"]:
        patterns = _read_rows(params, context, context.model.roles.patterns)
        return jnp.stack([pattern.mean(axis=(0, 1)) for pattern in patterns])

    return Measure(
        "attention_pattern",
        function,
        ("layer", "head", "key"),
        roles=("patterns",),
        ground_truth=("table",),
    )


def _read_rows(
    params: Params, context: Context, sites: tuple[str, ...]
) -> list[Float[Array, "token token_other head key"]]:
    """Scores or patterns of the position that is read; the last layer holds no other."""
    rows = [context.read[0]] * (len(sites) - 1) + [0]
    return [
        table_site(params, context, site)[:, :, :, row]
        for site, row in zip(sites, rows, strict=True)
    ]
