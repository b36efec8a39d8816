"""Linear probes as functions of arrays: ridge, logistic regression, angles, and their accuracy.

A probe gives each class a score s = W x + b, over centred vectors x. Several concepts are fitted at
once: a row of W, b, s and Y is a class, and the classes of a concept are adjacent rows (``Rows``).
Row c of Y is 1 for the examples of class c, else 0. ``ridge`` is a strength relative to the mean
variance v of the vectors: the penalty is ridge v ||W||^2, so that rescaling the vectors changes
nothing.
"""

from collections.abc import Callable, Sequence
from math import gcd

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from mi_jax.basics.dims import Scalar

Rows = tuple[tuple[int, int], ...]
"""Half-open ranges of rows, one per concept."""

Weights = tuple[Float[Array, "row d"], Float[Array, " row"]]
"""W and b."""

ITERATIONS = 100
"""Accelerated steps of logistic regression."""


def row_ranges(classes: Sequence[int]) -> Rows:
    """The ranges of rows of several concepts.

    Args:
        classes: number of classes of each concept.

    Example:
        >>> row_ranges((3, 2))
        ((0, 3), (3, 5))
    """
    ends = np.cumsum(classes).tolist()
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


def by_size(
    rows: Rows,
    read: Callable[..., PyTree],
    scores: Sequence[Float[Array, "row _"]],
    *others: Sequence[Array],
) -> list[PyTree]:
    """Calls ``read`` on each concept's rows.

    Concepts with equally many classes are read by one vectorised call, so that a program has three
    loops instead of fifteen.

    Args:
        rows: ranges of rows, one per concept.
        read: a function of the concept's rows of each array in ``scores``, and of the concept's
            entry of each sequence in ``others``.
        scores: arrays with the rows of all concepts.
        others: sequences with one array per concept.

    Returns:
        One result per concept.
    """
    sizes, results = [end - start for start, end in rows], dict[int, PyTree]()
    for size in sorted(set(sizes)):
        concepts = [concept for concept, other in enumerate(sizes) if other == size]
        stacked = [
            jnp.stack([x[rows[concept][0] : rows[concept][1]] for concept in concepts])
            for x in scores
        ]
        stacked += [jnp.stack([x[concept] for concept in concepts]) for x in others]
        together = jax.vmap(read)(*stacked)
        results |= {
            concept: jax.tree.map(lambda x, i=i: x[i], together)
            for i, concept in enumerate(concepts)
        }
    return [results[concept] for concept in range(len(rows))]


def one_hot_rows(
    values: Sequence[Int[Array, " example"]], classes: Sequence[int]
) -> Float[Array, "row example"]:
    """The matrix Y of one-hot classes.

    Args:
        values: the class of each example, one array per concept.
        classes: number of classes of each concept.
    """
    return jnp.concatenate(
        [jax.nn.one_hot(x, n, axis=0) for x, n in zip(values, classes, strict=True)]
    )


def mean_variance(X: Float[Array, "example d"]) -> Scalar:
    """The mean variance v: mean square of centred vectors over examples and dimensions.

    It is 1 if nothing varies, so that a penalty stays positive.
    """
    v = jnp.square(X).mean()
    return jnp.where(v == 0, 1.0, v)


def fit(
    kind: str,
    X: Float[Array, "example d"],
    Y: Float[Array, "row example"],
    rows: Rows,
    ridge: float,
) -> Weights:
    """Fits a probe of the given kind.

    Args:
        kind: "logistic" for ``logistic_fit``; any other kind is read from ``ridge_fit``.
        X: centred vectors.
        Y: one-hot classes.
        rows: ranges of rows, one per concept.
        ridge: strength relative to the mean variance of the vectors.
    """
    return logistic_fit(X, Y, rows, ridge) if kind == "logistic" else ridge_fit(X, Y, ridge)


def ridge_fit(
    X: Float[Array, "example d"], Y: Float[Array, "row example"], ridge: float
) -> Weights:
    """Least squares onto one-hot classes.

    Minimises mean ||Y - W x - b||^2 + ridge v ||W||^2; b is the share of each class. The same as
    scikit-learn's ``Ridge(alpha=n ridge v)`` on one-hot targets. The normal equations square the
    condition of X, which costs digits where there are few examples; one step of refinement, on
    residuals that are taken from X itself, gives them back (Bjorck 1987, corrected semi-normal
    equations).

    Args:
        X: centred vectors.
        Y: one-hot classes.
        ridge: strength relative to the mean variance of the vectors.
    """
    n, d = X.shape
    penalty, b = ridge * mean_variance(X), Y.mean(axis=1)
    factor = jax.scipy.linalg.cho_factor(X.T @ X / n + penalty * jnp.eye(d))
    W = jnp.zeros((len(Y), d), X.dtype)
    for _ in range(2):
        missed = Y - b[:, None] - W @ X.T
        W = W + jax.scipy.linalg.cho_solve(factor, (missed @ X / n - penalty * W).T).T
    return W, b


def logistic_fit(
    X: Float[Array, "example d"],
    Y: Float[Array, "row example"],
    rows: Rows,
    ridge: float,
) -> Weights:
    """Multinomial logistic regression, each concept by itself.

    Minimises mean cross-entropy (nats) + ridge v ||W||^2 / 2. The same as scikit-learn's
    ``LogisticRegression(C=1 / (n ridge v))``.

    The Hessian is at most M = X^T X / (2 n) + ridge v I for every class (Boehning 1992). Each of
    the ``ITERATIONS`` accelerated gradient steps is preconditioned by that bound. They begin at
    W = V = 0, b = c = 0 and t = 1. With the gradients G and g of the objective at (V, c),

        W' = V - G M^-1,  b' = c - 2 g
        t' = (1 + sqrt(1 + 4 t^2)) / 2
        (V, c) = (W', b') + (t - 1) / t' (W' - W, b' - b)

    where each concept's t is set to 1 before t' if its momentum points uphill:
    <G, W' - W> + <g, b' - b> > 0. The objective ends within about 2e-3 nats of its minimum.

    Args:
        X: centred vectors.
        Y: one-hot classes.
        rows: ranges of rows, one per concept.
        ridge: strength relative to the mean variance of the vectors.
    """
    n, d = X.shape
    penalty = ridge * mean_variance(X)
    factor = jax.scipy.linalg.cho_factor(X.T @ X / (2 * n) + penalty * jnp.eye(d))
    concept_of_row = np.repeat(np.arange(len(rows)), [end - start for start, end in rows])
    zero = jnp.zeros((len(Y), d)), jnp.zeros(len(Y))

    def by_concept(x: Float[Array, " row"]) -> Float[Array, " concept"]:
        return jnp.stack([x[start:end].sum() for start, end in rows])

    def _step(
        carry: tuple[Weights, Weights, Float[Array, " concept"]], _: None
    ) -> tuple[tuple, None]:
        (W, b), (V, c), t = carry
        wrong = (jnp.exp(log_softmax(V @ X.T + c[:, None], rows)) - Y) / n
        gradient = wrong @ X + penalty * V
        W_next = V - jax.scipy.linalg.cho_solve(factor, gradient.T).T
        b_next = c - 2 * wrong.sum(axis=1)
        uphill = by_concept(
            (gradient * (W_next - W)).sum(axis=1) + wrong.sum(axis=1) * (b_next - b)
        )
        t = jnp.where(uphill > 0, 1.0, t)
        t_next = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        momentum = ((t - 1) / t_next)[concept_of_row]
        ahead = W_next + momentum[:, None] * (W_next - W), b_next + momentum * (b_next - b)
        return ((W_next, b_next), ahead, t_next), None

    (weights, _, _), _ = jax.lax.scan(
        _step, (zero, zero, jnp.ones(len(rows))), None, length=ITERATIONS
    )
    return weights


def log_softmax(scores: Float[Array, "row example"], rows: Rows) -> Float[Array, "row example"]:
    """Log-probabilities in nats, normalised over each concept's own classes.

    Args:
        scores: of all concepts' classes.
        rows: ranges of rows, one per concept.
    """
    return jnp.concatenate([jax.nn.log_softmax(scores[start:end], axis=0) for start, end in rows])


def right_share(
    scores: Float[Array, "class example"], values: Int[Array, " example"]
) -> Float[Array, " example"]:
    """Whether each example's class has the largest score; 1 / m where m classes share it.

    Args:
        scores: of one concept's classes.
        values: the class of each example.
    """
    right = jnp.take_along_axis(scores, values[None], axis=0)
    # A single sum instead of an argmax, which is slow on CPU. A larger score counts more than all
    # equal ones together, so the sum exceeds the number of classes if there is one.
    rank = jnp.where(
        scores > right, scores.shape[0] + 1.0, (scores == right).astype(jnp.float32)
    ).sum(axis=0)
    return jnp.where(rank <= scores.shape[0], 1 / rank, 0.0)


def coprime_frequencies(classes: int) -> tuple[int, ...]:
    """The frequencies k, up to half of them, at which all classes have different angles.

    These are the k coprime to the number of classes; the angle of class c is 2 pi k c / classes.
    """
    return tuple(k for k in range(1, classes // 2 + 1) if gcd(k, classes) == 1) or (1,)


def angle_scores(
    scores: Float[Array, "class example"], trained: Float[Array, "class trained"]
) -> Float[Array, "class example"]:
    """Scores of classes by their angles, at the frequency that explains the training examples best.

    Ridge regression onto (cos, sin)(2 pi k c / C) of the class c of C is linear in its targets, so
    its prediction is the sum over classes of ridge scores times these angles' cosines and sines.
    The score of a class is the cosine-weighted agreement of its angle with the prediction. The
    frequency k, coprime to C, is the one that explains the largest share of the training targets'
    variance. Classes that no training example has are scored too, since they have an angle.

    Args:
        scores: ridge scores of all examples, the training examples first.
        trained: one-hot classes of the training examples.
    """
    classes, n = trained.shape
    angles = 2 * np.pi * np.outer(coprime_frequencies(classes), np.arange(classes)) / classes
    waves = jnp.asarray(
        np.stack([np.cos(angles), np.sin(angles)], axis=1), jnp.float32
    )  # [frequency part class]
    predicted = jnp.einsum("kpc,cn->kpn", waves, scores)
    target = jnp.einsum("kpc,cn->kpn", waves, trained)
    missed = jnp.square(target - predicted[..., :n]).sum(axis=(1, 2))
    varied = jnp.square(target - target.mean(axis=2, keepdims=True)).sum(axis=(1, 2))
    best = jnp.argmin(missed / jnp.where(varied == 0, jnp.inf, varied))
    return jnp.einsum("pc,pn->cn", waves[best], predicted[best])
