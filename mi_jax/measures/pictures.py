"""What figures show of chosen snapshots, too large to read at every one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.fourier import fourier_basis, frequencies
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import table_logits
from mi_jax.measures.fourier import embedding_table


def answer_surface() -> Measure:
    """The right logit minus the largest wrong one for every pair: above 0 where the answer is
    right.
    """

    def function(params: Params, context: Context) -> Float[Array, "token token_other"]:
        logits = table_logits(params, context)
        right = jax.nn.one_hot(context.ground_truth["answer"], logits.shape[-1], dtype=bool)
        return jnp.where(right, logits, 0).sum(axis=-1) - jnp.where(right, -jnp.inf, logits).max(
            axis=-1
        )

    return Measure(
        "answer_surface", function, ("token", "token_other"), ground_truth=("table", "answer")
    )


def trained_pairs() -> Measure:
    """1 for the pairs that are trained on, 0 for the others."""

    def function(params: Params, context: Context) -> Float[Array, "token token_other"]:
        splits = [
            jnp.full(context.batches[name].targets.shape[0], float(name == "train"))
            for name in sorted(context.batches)
        ]
        return jnp.concatenate(splits)[context.ground_truth["table"]]

    return Measure("trained_pairs", function, ("token", "token_other"), ground_truth=("table",))


def circle_coordinates() -> Measure:
    """Each token's place in the plane of each frequency: the centred embedding along the final
    model's two directions of it.

    Direction of frequency k: F_k W_E of the final model, made of unit length; the sine's is made
        orthogonal to the cosine's.
    """

    def function(params: Params, context: Context) -> Float[Array, "frequency token direction"]:
        final, table = (
            embedding_table(context.reference.final, context),
            embedding_table(params, context),
        )
        p = table.shape[0]
        rows = jnp.asarray(fourier_basis(p))[1:] @ final
        cos, sin = rows[0::2][: (p - 1) // 2], rows[1::2]
        cos = cos / jnp.linalg.norm(cos, axis=1, keepdims=True)
        sin = sin - (sin * cos).sum(axis=1, keepdims=True) * cos
        sin = sin / jnp.linalg.norm(sin, axis=1, keepdims=True)
        centred = table - table.mean(axis=0, keepdims=True)
        places = jnp.stack([centred @ cos.T, centred @ sin.T], axis=-1).transpose(1, 0, 2)
        return jnp.pad(places, ((0, frequencies(p) - (p - 1) // 2), (0, 0), (0, 0)))

    return Measure(
        "circle_coordinates",
        function,
        ("frequency", "token", "direction"),
        roles=("embedding",),
        ground_truth=("residues",),
        uses=frozenset({"final"}),
        coordinates={"direction": ("cos", "sin")},
    )


PICTURES = {one.name: one for one in (answer_surface(), trained_pairs(), circle_coordinates())}
"""Readings that are taken at chosen snapshots only, for figures."""
