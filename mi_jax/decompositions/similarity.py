"""How alike two networks are: their representations (CKA, Procrustes), and the loss on the straight
line between them.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, batch_loss
from mi_jax.measures.evaluation import batch, table_neurons

POINTS = 11
"""Points on the line between two networks, both ends among them."""


def _centred(rows: Float[Array, "example feature"]) -> Float[Array, "example feature"]:
    """Without the mean over examples, of Frobenius norm 1."""
    around = rows - rows.mean(axis=0, keepdims=True)
    return around / jnp.linalg.norm(around.ravel())


def linear_cka(
    one: Float[Array, "example feature"], other: Float[Array, "example feature_other"]
) -> Scalar:
    """||X^T Y||_F^2 / (||X^T X||_F ||Y^T Y||_F), both centred over examples (Kornblith et al. 2019,
    arXiv 1905.00414).

    1 for representations that a rotation and a factor take into each other; what random ones have
    depends on the widths.
    """
    X, Y = _centred(one), _centred(other)
    square = lambda A, B: jnp.square(A.T @ B).sum()  # noqa: E731
    return square(X, Y) / jnp.sqrt(square(X, X) * square(Y, Y))


def procrustes_distance(
    one: Float[Array, "example feature"], other: Float[Array, "example feature_other"]
) -> Scalar:
    """min over rotations Q of ||X - Y Q||_F = sqrt(2 - 2 ||X^T Y||_*), both centred and of norm 1
    (arXiv 2108.01661).

    From 0, equal but for a rotation and a factor, to sqrt(2), where no direction of one is
    correlated with one of the other.
    """
    nuclear = jnp.linalg.svd(_centred(one).T @ _centred(other), compute_uv=False).sum()
    return jnp.sqrt(jnp.maximum(2 - 2 * nuclear, 0))


def _of_neurons(params: Params, context: Context) -> Float[Array, "pair neuron"]:
    table = table_neurons(params, context)
    return table.reshape(-1, table.shape[-1])


def similarity(kind: Literal["cka", "procrustes"], other: Literal["previous", "final"]) -> Measure:
    """``linear_cka`` or ``procrustes_distance`` of the neurons' activations over all pairs, now and
    in another checkpoint.
    """
    compare = {"cka": linear_cka, "procrustes": procrustes_distance}[kind]

    def function(params: Params, context: Context) -> Scalar:
        return compare(
            _of_neurons(params, context), _of_neurons(getattr(context.reference, other), context)
        )

    source = {"cka": "arXiv 1905.00414", "procrustes": "arXiv 2108.01661"}[kind]
    return Measure(
        f"{kind}_{other}",
        function,
        roles=("neurons",),
        ground_truth=("table",),
        uses=frozenset({other}),
        null="untrained_pair",
        source=source,
    )


def path_losses(one: Params, other: Params, context: Context, split: str) -> Float[Array, " point"]:
    """The loss of a split at equally spaced points on the straight line between two networks'
    parameters.
    """
    examples = batch(context, split)

    def at(share: Scalar) -> Scalar:
        params = jax.tree.map(lambda x, y: (1 - share) * x + share * y, one, other)
        outputs = context.model.apply(params, examples.inputs, positions=context.read)
        return batch_loss(context.loss, outputs, examples)

    return jax.lax.map(at, jnp.linspace(0, 1, POINTS))


def barrier(losses: Float[Array, " point"]) -> Scalar:
    """max over the line of the loss less what lies on the chord between its ends: 0 where the loss
    is convex along it.
    """
    share = jnp.linspace(0, 1, len(losses))
    return (losses - ((1 - share) * losses[0] + share * losses[-1])).max()


def loss_barrier(split: str, other: Literal["previous", "final"] = "final") -> Measure:
    """The barrier on the line from this checkpoint to another: see ``barrier`` (Frankle et al.
    2020, Entezari et al. 2022).
    """

    def function(params: Params, context: Context) -> Scalar:
        return barrier(path_losses(params, getattr(context.reference, other), context, split))

    return Measure(
        f"loss_barrier_{split}_{other}",
        function,
        splits=(split,),
        uses=frozenset({other}),
        options={"points": POINTS},
        null="untrained_pair",
        units="loss",
        source="arXiv 1912.05671, 2110.06296",
    )
