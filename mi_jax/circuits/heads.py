"""Attention heads' effect on tokens and on one another, from the weights alone.

A head's circuits are QK = W_Q W_K^T (which token looks at which) and OV = W_V W_O (what is moved),
d x d matrices of rank d_head (Elhage et al. 2021). Norms between the residual stream and the heads
are left out.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.circuits.factored import (
    Factored,
    between,
    eigenvalue_score,
    norm,
    singular_values,
    through,
)
from mi_jax.contracts import Context, Heads, Measure
from mi_jax.measures.evaluation import shared
from mi_jax.measures.fourier import embedding_table

SOURCE = "Elhage et al. 2021"

SLOTS = ("query", "key", "value")
"""Inputs of a head that an earlier head may compose with."""


def query_key(heads: Heads) -> Factored:
    """QK = W_Q W_K^T of every head [layer head d d]."""
    return Factored(jnp.asarray(heads.W_Q), jnp.matrix_transpose(jnp.asarray(heads.W_K)))


def output_value(heads: Heads) -> Factored:
    """OV = W_V W_O of every head [layer head d d]."""
    return Factored(jnp.asarray(heads.W_V), jnp.asarray(heads.W_O))


def full_query_key(params: Params, context: Context) -> Factored:
    """W_E QK W_E^T [layer head token token]: the score of one token as query for another as key.

    Args:
        params: of a model with the roles heads and embedding.
        context: the evaluation, which holds the model.

    Returns:
        The product as its factors; rows are queries, columns are keys.
    """
    E = embedding_table(params, context)[None, None]
    return between(E, query_key(_heads(params, context)), jnp.matrix_transpose(E))


def full_output_value(params: Params, context: Context) -> Factored:
    """W_E OV W_U [layer head token class]: what attending to a token adds to each class's logit.

    Args:
        params: of a model with the roles heads, embedding and unembedding.
        context: the evaluation, which holds the model.

    Returns:
        The product as its factors; rows are tokens, columns are classes.
    """
    unembedding = context.model.roles.unembedding
    assert unembedding is not None
    return between(
        embedding_table(params, context)[None, None],
        output_value(_heads(params, context)),
        jnp.asarray(unembedding(params))[None, None],
    )


@shared
def _heads(params: Params, context: Context) -> Heads:
    """The matrices of all heads."""
    heads = context.model.roles.heads
    assert heads is not None
    return heads(params)


def copying_score() -> Measure:
    """Eigenvalue score of W_E OV W_U: whether a head raises the logit of the token it attends to.

    sum lambda / sum |lambda| over the eigenvalues, on the tokens that are classes. It is 1 for a
    head that copies, about 0 for random weights, and -1 for a head that suppresses.

    Returns:
        A measure ``copying_score`` with dims (layer, head). It needs the roles heads, embedding
        and unembedding. Source: Elhage et al. 2021.
    """

    def _copying_score(params: Params, context: Context) -> Float[Array, "layer head"]:
        full = full_output_value(params, context)
        both = min(full.left.shape[-2], full.right.shape[-1])
        return eigenvalue_score(Factored(full.left[..., :both, :], full.right[..., :both]))

    return Measure(
        "copying_score",
        _copying_score,
        ("layer", "head"),
        roles=("heads", "embedding", "unembedding"),
        source=SOURCE,
    )


def matching_score() -> Measure:
    """Eigenvalue score of W_E QK W_E^T: whether a head's queries look for their own token.

    sum lambda / sum |lambda| over the eigenvalues. It is 1 for a head that attends to equal
    tokens, about 0 for random weights, and -1 for a head that avoids them.

    Returns:
        A measure ``matching_score`` with dims (layer, head). It needs the roles heads and
        embedding. Source: Elhage et al. 2021.
    """

    def _matching_score(params: Params, context: Context) -> Float[Array, "layer head"]:
        return eigenvalue_score(full_query_key(params, context))

    return Measure(
        "matching_score",
        _matching_score,
        ("layer", "head"),
        roles=("heads", "embedding"),
        source=SOURCE,
    )


def head_norms() -> Measure:
    """Frobenius norms ||W_Q W_K^T|| and ||W_V W_O|| of every head.

    Returns:
        A measure with the variables ``qk_norm`` and ``ov_norm``, dims (layer, head). It needs the
        role heads.
    """

    def _head_norms(params: Params, context: Context) -> dict[str, Array]:
        heads = _heads(params, context)
        return {"qk_norm": norm(query_key(heads)), "ov_norm": norm(output_value(heads))}

    return Measure(
        "head_norms",
        _head_norms,
        dict.fromkeys(("qk_norm", "ov_norm"), ("layer", "head")),
        roles=("heads",),
    )


def head_rank() -> Measure:
    """Participation ratios of every head's QK and OV: the number of directions a head acts on.

    (sum s^2)^2 / sum s^4 over the singular values s: 1 for a circuit of rank one, d_head if all
    singular values are equal.

    Returns:
        A measure with the variables ``qk_rank`` and ``ov_rank``, dims (layer, head). It needs the
        role heads.
    """

    def ratio(circuit: Factored) -> Float[Array, "layer head"]:
        power = jnp.square(singular_values(circuit))
        return power.sum(axis=-1) ** 2 / jnp.square(power).sum(axis=-1)

    def _head_rank(params: Params, context: Context) -> dict[str, Array]:
        heads = _heads(params, context)
        return {"qk_rank": ratio(query_key(heads)), "ov_rank": ratio(output_value(heads))}

    return Measure(
        "head_rank",
        _head_rank,
        dict.fromkeys(("qk_rank", "ov_rank"), ("layer", "head")),
        roles=("heads",),
    )


# --- Composition -------------------------------------------------------------------------------


def _flat(circuits: Factored) -> Factored:
    """The heads of all layers along one axis."""
    return Factored(*(x.reshape(-1, *x.shape[2:]) for x in circuits))


def _pairs(circuits: Factored, axis: int) -> Factored:
    """Circuits with a new axis for the other head of a pair."""
    return Factored(*(jnp.expand_dims(x, axis) for x in circuits))


def _earlier(heads: Heads) -> Float[Array, "head head_other"]:
    """1 where ``head`` is in an earlier layer than ``head_other``, else 0."""
    layer = jnp.repeat(jnp.arange(heads.W_Q.shape[0]), heads.W_Q.shape[1])
    return (layer[:, None] < layer[None, :]).astype(jnp.float32)


def composition_score() -> Measure:
    """Composition of a head with heads in later layers: by query, by key and by value.

    ||L R|| / (||L|| ||R||), where L is the OV of a head, and R is QK, QK^T or OV of a head in a
    later layer (in the order of the slots query, key, value). Random heads have a score of
    1 / sqrt(d_model); a larger one means that the later head reads what the earlier one writes.

    Returns:
        A measure with two variables, dims (head, head_other, slot): ``head`` writes, ``head_other``
        reads. Both run over the heads of all layers: layer * heads + place in the layer.
        ``composition_score`` is 0 unless ``head`` is in an earlier layer than ``head_other``.
        ``composition_excess`` is the score less 1 / sqrt(d_model), and NaN where no composition is
        possible. It needs the role heads, in at least two layers. Source: Elhage et al. 2021.
    """

    def _composition_score(params: Params, context: Context) -> dict[str, Array]:
        heads = _heads(params, context)
        qk, ov = _flat(query_key(heads)), _flat(output_value(heads))
        scores = [_composed(_pairs(ov, 1), _pairs(reads, 0)) for reads in (qk, qk.T, ov)]
        score, possible = jnp.stack(scores, axis=-1), _earlier(heads)[..., None] > 0
        excess = score - 1 / jnp.sqrt(heads.W_Q.shape[2])
        return {
            "composition_score": jnp.where(possible, score, 0),
            "composition_excess": jnp.where(possible, excess, jnp.nan),
        }

    dims = ("head", "head_other", "slot")
    return Measure(
        "composition_score",
        _composition_score,
        {"composition_score": dims, "composition_excess": dims},
        roles=("heads", "heads_in_two_layers"),
        coordinates={"slot": SLOTS},
        source=SOURCE,
    )


def _composed(writes: Factored, reads: Factored) -> Float[Array, "head head_other"]:
    """||L R|| / (||L|| ||R||) of every pair: ``head`` writes L, ``head_other`` reads with R."""
    return norm(through(writes, reads)) / (norm(writes) * norm(reads))


def matching_through_head() -> Measure:
    """Eigenvalue score of W_E QK (OV)^T W_E^T: matching of tokens through an earlier head.

    sum lambda / sum |lambda| over the eigenvalues of W_E QK (OV)^T W_E^T, OV of ``head``, QK of
    ``head_other``. It is 1 for an induction head behind a previous-token head: its queries look for
    keys that follow their own token.

    Returns:
        A measure ``matching_through_head`` with dims (head, head_other). Both run over the heads of
        all layers: layer * heads + place in the layer. NaN unless ``head_other`` is in a later
        layer than ``head``. It needs the roles heads (in at least two layers) and embedding.
        Source: Elhage et al. 2021.
    """

    def _matching_through_head(params: Params, context: Context) -> Float[Array, "head head_other"]:
        heads, E = _heads(params, context), embedding_table(params, context)[None, None]
        moved, reads = _pairs(_flat(output_value(heads)), 1), _pairs(_flat(query_key(heads)), 0)
        score = eigenvalue_score(between(E, through(reads, moved.T), jnp.matrix_transpose(E)))
        return jnp.where(_earlier(heads) > 0, score, jnp.nan)

    return Measure(
        "matching_through_head",
        _matching_through_head,
        ("head", "head_other"),
        roles=("heads", "heads_in_two_layers", "embedding"),
        source=SOURCE,
    )
