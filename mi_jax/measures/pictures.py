"""Readings for figures: too large to take at every snapshot, so taken at chosen ones."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.fourier import fourier_basis, frequencies
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import right_and_wrong, table_logits
from mi_jax.measures.fourier import embedding_table


def answer_surface() -> Measure:
    """Margin of every pair: logit of the right class minus the largest other logit.

    Positive where the answer is right.

    Returns:
        A Measure with ``answer_surface`` of dims (token, token_other), in the units of the logits.
        It needs a task on all pairs.
    """

    def _answer_surface(params: Params, context: Context) -> Float[Array, "token token_other"]:
        right, wrong = right_and_wrong(
            table_logits(params, context), context.ground_truth["answer"]
        )
        return right - wrong

    return Measure(
        "answer_surface",
        _answer_surface,
        ("token", "token_other"),
        ground_truth=("table", "answer"),
    )


def trained_pairs() -> Measure:
    """Membership of every pair in the training set: 1 for trained pairs, 0 for the others.

    Returns:
        A Measure with ``trained_pairs`` of dims (token, token_other). It needs a task on all pairs.
    """

    def _trained_pairs(params: Params, context: Context) -> Float[Array, "token token_other"]:
        splits = [
            jnp.full(context.batches[name].targets.shape[0], float(name == "train"))
            for name in sorted(context.batches)
        ]
        return jnp.concatenate(splits)[context.ground_truth["table"]]

    return Measure(
        "trained_pairs", _trained_pairs, ("token", "token_other"), ground_truth=("table",)
    )


def circle_coordinates() -> Measure:
    """Coordinates of each token in the plane of each frequency.

    The centred embedding projected on two directions of the final model. For frequency k they are
    the cosine and sine rows of F times the final W_E, each of unit length, the sine's made
    orthogonal to the cosine's. Tokens on a circle mean that the embedding already holds the final
    circle of this frequency (arXiv 2301.05217).

    Returns:
        A Measure with ``circle_coordinates`` of dims (frequency, token, direction), in the units of
        the embedding; 0 for the last frequency of an even p, which has no plane. It needs the final
        parameters, the role ``embedding`` and a task on residues.
    """

    def _circle_coordinates(
        params: Params, context: Context
    ) -> Float[Array, "frequency token direction"]:
        final = embedding_table(context.reference.final, context)
        table = embedding_table(params, context)
        p = table.shape[0]
        rows = jnp.asarray(fourier_basis(p))[1:] @ final
        cos, sin = rows[0::2][: (p - 1) // 2], rows[1::2]
        cos = cos / jnp.linalg.norm(cos, axis=1, keepdims=True)
        sin = sin - (sin * cos).sum(axis=1, keepdims=True) * cos
        sin = sin / jnp.linalg.norm(sin, axis=1, keepdims=True)
        centred = table - table.mean(axis=0, keepdims=True)
        coordinates = jnp.stack([centred @ cos.T, centred @ sin.T], axis=-1).transpose(1, 0, 2)
        return jnp.pad(coordinates, ((0, frequencies(p) - (p - 1) // 2), (0, 0), (0, 0)))

    return Measure(
        "circle_coordinates",
        _circle_coordinates,
        ("frequency", "token", "direction"),
        roles=("embedding",),
        ground_truth=("residues",),
        uses=frozenset({"final"}),
        coordinates={"direction": ("cos", "sin")},
    )


PICTURES = {
    measure.name: measure for measure in (answer_surface(), trained_pairs(), circle_coordinates())
}
"""Readings by name that are taken at chosen snapshots only, for figures."""
