"""Likeness of two networks: of their representations, and of the loss on the line between them.

Representations are compared by CKA and Procrustes distance, parameters by the loss barrier on the
straight line from one network to the other.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics import lapack
from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, batch_loss
from mi_jax.measures.evaluation import batch, table_neurons

POINTS = 11
"""Number of points on the line between two networks, both ends among them."""


def _centred(rows: Float[Array, "example feature"]) -> Float[Array, "example feature"]:
    """Rows without their mean over examples, scaled to Frobenius norm 1."""
    around = rows - rows.mean(axis=0, keepdims=True)
    return around / jnp.linalg.norm(around.ravel())


def linear_cka(
    one: Float[Array, "example feature"], other: Float[Array, "example feature_other"]
) -> Scalar:
    """Linear centred kernel alignment of two representations of the same examples.

    ||X^T Y||_F^2 / (||X^T X||_F ||Y^T Y||_F), X and Y centred over examples (Kornblith et al.
    2019, arXiv 1905.00414).

    Args:
        one: the first representation.
        other: the second one, in the same order of examples; its width may differ.

    Returns:
        A number between 0 and 1. It is 1 for representations that a rotation and a factor take
        into each other; for random ones it depends on their widths.

    Example:
        >>> X = jax.random.normal(jax.random.key(0), (20, 3))
        >>> round(float(linear_cka(X, 5 * X[:, ::-1] + 1)), 4)
        1.0
    """
    X, Y = _centred(one), _centred(other)

    def squared(A: Array, B: Array) -> Scalar:
        return jnp.square(A.T @ B).sum()

    return squared(X, Y) / jnp.sqrt(squared(X, X) * squared(Y, Y))


def procrustes_distance(
    one: Float[Array, "example feature"], other: Float[Array, "example feature_other"]
) -> Scalar:
    """Distance of two representations after the best rotation of one onto the other.

    min over rotations Q of ||X - Y Q||_F = sqrt(2 - 2 ||X^T Y||_*), where X and Y are centred over
    examples and of norm 1, and ||.||_* is the sum of singular values (arXiv 2108.01661). The
    narrower of two representations is extended by columns of zeros.

    Args:
        one: the first representation.
        other: the second one, in the same order of examples; its width may differ.

    Returns:
        A number between 0 (equal up to a rotation and a factor) and sqrt(2) (no direction of one
        is correlated with a direction of the other).

    Example:
        >>> X = jax.random.normal(jax.random.key(0), (20, 3))
        >>> float(procrustes_distance(X, 5 * X[:, ::-1] + 1)) < 1e-5
        True
    """
    width = max(one.shape[1], other.shape[1])
    X, Y = (
        jnp.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in map(_centred, (one, other))
    )
    u, _, vt = lapack.svd(Y.T @ X)
    # Never as sqrt(2 - 2 ||X^T Y||_*): near 0 the difference cancels, and in float32 every distance
    # below 1e-2 would be rounding.
    return jnp.linalg.norm((X - Y @ (u @ vt)).ravel())


def _neuron_rows(params: Params, context: Context) -> Float[Array, "pair neuron"]:
    """Activations of the neurons, one row per pair of tokens."""
    table = table_neurons(params, context)
    return table.reshape(-1, table.shape[-1])


def similarity(kind: Literal["cka", "procrustes"], other: Literal["previous", "final"]) -> Measure:
    """Likeness of the neurons' activations over all pairs, now and in another checkpoint.

    High CKA, or a small Procrustes distance, means that the representation is already the other
    checkpoint's, up to a rotation and a factor.

    Args:
        kind: "cka" for ``linear_cka``, "procrustes" for ``procrustes_distance``.
        other: the checkpoint to compare with: the snapshot before, or the final one.

    Returns:
        A measure ``{kind}_{other}`` without dims of its own. It needs the role neurons and the
        ground truth table.
    """
    compare = {"cka": linear_cka, "procrustes": procrustes_distance}[kind]

    def _similarity(params: Params, context: Context) -> Scalar:
        return compare(
            _neuron_rows(params, context), _neuron_rows(getattr(context.reference, other), context)
        )

    source = {"cka": "arXiv 1905.00414", "procrustes": "arXiv 2108.01661"}[kind]
    return Measure(
        f"{kind}_{other}",
        _similarity,
        roles=("neurons",),
        ground_truth=("table",),
        uses=frozenset({other}),
        null="untrained_pair",
        source=source,
    )


def path_losses(one: Params, other: Params, context: Context, split: str) -> Float[Array, " point"]:
    """The loss of a split on the straight line between two networks' parameters.

    Args:
        one: parameters of the network at the first point.
        other: parameters of the network at the last point.
        context: the evaluation to read the loss with.
        split: name of the split.

    Returns:
        The loss at ``POINTS`` equally spaced points, in the unit of the run's loss.

    Raises:
        MeasureError: if the task has no such split.
    """
    examples = batch(context, split)

    def loss_at(share: Scalar) -> Scalar:
        params = jax.tree.map(lambda x, y: (1 - share) * x + share * y, one, other)
        outputs = context.model.apply(params, examples.inputs, positions=context.read)
        return batch_loss(context.loss, outputs, examples)

    return jax.lax.map(loss_at, jnp.linspace(0, 1, POINTS))


def barrier(losses: Float[Array, " point"]) -> Scalar:
    """The largest height of a loss curve above the chord between its ends.

    Args:
        losses: at equally spaced points.

    Returns:
        The height in the unit of the losses: 0 if the loss is convex along the line.

    Example:
        >>> float(barrier(jnp.array([1.0, 4.0, 3.0])))
        2.0
    """
    share = jnp.linspace(0, 1, len(losses))
    return (losses - ((1 - share) * losses[0] + share * losses[-1])).max()


def loss_barrier(split: str, other: Literal["previous", "final"] = "final") -> Measure:
    """Loss barrier on the straight line from this checkpoint to another one: see ``barrier``.

    A barrier of 0 means that both checkpoints lie in one basin, connected by a line (Frankle et
    al. 2020, arXiv 1912.05671; Entezari et al. 2022, arXiv 2110.06296).

    Args:
        split: name of the split whose loss is read.
        other: the checkpoint at the other end: the snapshot before, or the final one.

    Returns:
        A measure ``loss_barrier_{split}_{other}`` without dims of its own, in the unit of the
        run's loss.
    """

    def _loss_barrier(params: Params, context: Context) -> Scalar:
        return barrier(path_losses(params, getattr(context.reference, other), context, split))

    return Measure(
        f"loss_barrier_{split}_{other}",
        _loss_barrier,
        splits=(split,),
        uses=frozenset({other}),
        options={"points": POINTS},
        null="untrained_pair",
        units="loss",
        source="arXiv 1912.05671, 2110.06296",
    )
