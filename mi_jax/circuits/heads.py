"""What attention heads do to tokens and to one another, from the weights alone (Elhage et al.
2021).

A head's circuits are QK = W_Q W_K^T (which token looks at which) and OV = W_V W_O (what is moved),
d x d of rank d_head. Norms between the residual stream and the heads are left out.
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


def query_key(heads: Heads) -> Factored:
    """W_Q W_K^T of every head [layer head d d]."""
    return Factored(jnp.asarray(heads.W_Q), jnp.matrix_transpose(jnp.asarray(heads.W_K)))


def output_value(heads: Heads) -> Factored:
    """W_V W_O of every head [layer head d d]."""
    return Factored(jnp.asarray(heads.W_V), jnp.asarray(heads.W_O))


def full_query_key(params: Params, context: Context) -> Factored:
    """W_E QK W_E^T [layer head token token]: how much the first token as query scores the second as
    key.
    """
    E = embedding_table(params, context)[None, None]
    return between(E, query_key(_heads(params, context)), jnp.matrix_transpose(E))


def full_output_value(params: Params, context: Context) -> Factored:
    """W_E OV W_U [layer head token class]: what attending to a token adds to each class's logit."""
    unembedding = context.model.roles.unembedding
    assert unembedding is not None
    return between(
        embedding_table(params, context)[None, None],
        output_value(_heads(params, context)),
        jnp.asarray(unembedding(params))[None, None],
    )


@shared
def _heads(params: Params, context: Context) -> Heads:
    heads = context.model.roles.heads
    assert heads is not None
    return heads(params)


def copying_score() -> Measure:
    """sum lambda / sum |lambda| of the eigenvalues of W_E OV W_U, tokens that are classes: 1 for a
    head that copies.
    """

    def function(params: Params, context: Context) -> Float[Array, "layer head"]:
        full = full_output_value(params, context)
        both = min(full.left.shape[-2], full.right.shape[-1])
        return eigenvalue_score(Factored(full.left[..., :both, :], full.right[..., :both]))

    return Measure(
        "copying_score",
        function,
        ("layer", "head"),
        roles=("heads", "embedding", "unembedding"),
        source=SOURCE,
    )


def matching_score() -> Measure:
    """The same of W_E QK W_E^T: 1 for a head whose queries look for their own token."""

    def function(params: Params, context: Context) -> Float[Array, "layer head"]:
        return eigenvalue_score(full_query_key(params, context))

    return Measure(
        "matching_score", function, ("layer", "head"), roles=("heads", "embedding"), source=SOURCE
    )


def head_norms() -> Measure:
    """Frobenius norms ||W_Q W_K^T|| and ||W_V W_O||."""

    def function(params: Params, context: Context) -> dict[str, Array]:
        heads = _heads(params, context)
        return {"qk_norm": norm(query_key(heads)), "ov_norm": norm(output_value(heads))}

    return Measure(
        "head_norms",
        function,
        dict.fromkeys(("qk_norm", "ov_norm"), ("layer", "head")),
        roles=("heads",),
    )


def head_rank() -> Measure:
    """Participation ratios (sum s^2)^2 / sum s^4 of the singular values of QK and OV: how many
    directions a head treats.
    """

    def ratio(one: Factored) -> Float[Array, "layer head"]:
        power = jnp.square(singular_values(one))
        return power.sum(axis=-1) ** 2 / jnp.square(power).sum(axis=-1)

    def function(params: Params, context: Context) -> dict[str, Array]:
        heads = _heads(params, context)
        return {"qk_rank": ratio(query_key(heads)), "ov_rank": ratio(output_value(heads))}

    return Measure(
        "head_rank",
        function,
        dict.fromkeys(("qk_rank", "ov_rank"), ("layer", "head")),
        roles=("heads",),
    )


# --- Composition
# --------------------------------------------------------------------------------------------------------------


def _flat(one: Factored) -> Factored:
    """Heads of all layers in a row."""
    return Factored(*(x.reshape(-1, *x.shape[2:]) for x in one))


def _pairs(one: Factored, axis: int) -> Factored:
    """With an axis for the other head."""
    return Factored(*(jnp.expand_dims(x, axis) for x in one))


def _earlier(heads: Heads) -> Float[Array, "head head_other"]:
    """1 where the first head is in an earlier layer than the second."""
    layer = jnp.repeat(jnp.arange(heads.W_Q.shape[0]), heads.W_Q.shape[1])
    return (layer[:, None] < layer[None, :]).astype(jnp.float32)


def composition_score() -> Measure:
    """||L R|| / (||L|| ||R||), L = OV of a head, R = QK, QK^T or OV of one in a later layer:
    composition by query, key, value.

    Heads of all layers in a row, head = layer heads + place; 0 unless the first is in an earlier
    layer. ``composition_excess`` is the score less what random heads have, 1 / sqrt(d_model), and
    NaN where there is no composition.
    """

    def function(params: Params, context: Context) -> dict[str, Array]:
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
        function,
        {"composition_score": dims, "composition_excess": dims},
        roles=("heads", "heads_in_two_layers"),
        coordinates={"slot": SLOTS},
        source=SOURCE,
    )


def _composed(writes: Factored, reads: Factored) -> Float[Array, "head head_other"]:
    return norm(through(writes, reads)) / (norm(writes) * norm(reads))


def matching_through_head() -> Measure:
    """The eigenvalue score of W_E QK (OV)^T W_E^T, OV of a head and QK of one in a later layer; NaN
    where it isn't later.

    1 for an induction head behind a previous-token head: its queries look for keys that follow
    their own token.
    """

    def function(params: Params, context: Context) -> Float[Array, "head head_other"]:
        heads, E = _heads(params, context), embedding_table(params, context)[None, None]
        moved, reads = _pairs(_flat(output_value(heads)), 1), _pairs(_flat(query_key(heads)), 0)
        score = eigenvalue_score(between(E, through(reads, moved.T), jnp.matrix_transpose(E)))
        return jnp.where(_earlier(heads) > 0, score, jnp.nan)

    return Measure(
        "matching_through_head",
        function,
        ("head", "head_other"),
        roles=("heads", "heads_in_two_layers", "embedding"),
        source=SOURCE,
    )
