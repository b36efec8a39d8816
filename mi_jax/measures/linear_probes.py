"""Linear probes as arrays in, arrays out: ridge in closed form, logistic regression, and angles;
how often each is right.

A probe gives each class a score, s = W x + b, over centred vectors x. Several concepts are fitted
at once: their classes are rows one after the other (``Rows``), and row c of Y is 1 for the examples
of class c. ``ridge`` is the strength relative to the mean variance v of the vectors: what is
penalised is ridge v ||W||^2, so that rescaling the vectors changes nothing.
"""

from collections.abc import Callable, Sequence
from math import gcd

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from mi_jax.basics.dims import Scalar

Rows = tuple[tuple[int, int], ...]
"""Half-open ranges of rows, one a concept."""

Weights = tuple[Float[Array, "row d"], Float[Array, " row"]]
"""W and b."""

ITERATIONS = 100
"""Accelerated steps of logistic regression."""


def rows_of(classes: Sequence[int]) -> Rows:
    """Where each concept's classes stand.

    Example:
        >>> rows_of((3, 2))
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
    """``read(*one concept's rows of each of scores, *its entry of each of others)`` by concept.

    Concepts of one number of classes are read in one go: a program of three loops instead of
        fifteen.
    """
    sizes, found = [end - start for start, end in rows], dict[int, PyTree]()
    for size in sorted(set(sizes)):
        alike = [place for place, other in enumerate(sizes) if other == size]
        own = [jnp.stack([x[rows[place][0] : rows[place][1]] for place in alike]) for x in scores]
        read_all = jax.vmap(read)(*own, *(jnp.stack([x[place] for place in alike]) for x in others))
        found |= {
            place: jax.tree.map(lambda x, i=i: x[i], read_all) for i, place in enumerate(alike)
        }
    return [found[place] for place in range(len(rows))]


def one_hot_rows(
    values: Sequence[Int[Array, " example"]], classes: Sequence[int]
) -> Float[Array, "row example"]:
    """Y."""
    return jnp.concatenate(
        [jax.nn.one_hot(x, n, axis=0) for x, n in zip(values, classes, strict=True)]
    )


def mean_variance(X: Float[Array, "example d"]) -> Scalar:
    """v: sum of squares of centred vectors over examples and dimensions; 1 where nothing varies."""
    v = jnp.square(X).mean()
    return jnp.where(v == 0, 1.0, v)


def ridge_fit(
    X: Float[Array, "example d"], Y: Float[Array, "row example"], ridge: float
) -> Weights:
    """Least squares onto one-hot classes: minimises mean ||Y - W x - b||^2 + ridge v ||W||^2; b is
    the classes' shares.

    scikit-learn's ``Ridge(alpha=n ridge v)`` on one-hot targets. X must be centred.
    """
    n, d = X.shape
    gram = X.T @ X / n + ridge * mean_variance(X) * jnp.eye(d)
    W = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram), (Y @ X).T / n).T
    return W, Y.mean(axis=1)


def logistic_fit(
    X: Float[Array, "example d"],
    Y: Float[Array, "row example"],
    rows: Rows,
    ridge: float,
    iterations: int = ITERATIONS,
) -> Weights:
    """Multinomial logistic regression, each concept by itself: minimises mean cross-entropy (nats)
    + ridge v ||W||^2 / 2.

    scikit-learn's ``LogisticRegression(C=1 / (n ridge v))``. The Hessian is at most (X^T X / n) / 2
    + ridge v for every class (Boehning 1992): steps are preconditioned by that bound, factored
    once, and accelerated, each concept's momentum restarting where it points uphill.
    """
    n, d = X.shape
    penalty = ridge * mean_variance(X)
    factor = jax.scipy.linalg.cho_factor(X.T @ X / (2 * n) + penalty * jnp.eye(d))
    each = np.repeat(np.arange(len(rows)), [end - start for start, end in rows])
    by_concept = lambda x: jnp.stack([x[start:end].sum() for start, end in rows])  # noqa: E731
    zero = jnp.zeros((len(Y), d)), jnp.zeros(len(Y))

    def _step(
        carry: tuple[Weights, Weights, Float[Array, " concept"]], _: None
    ) -> tuple[tuple, None]:
        (W, b), (V, c), t = carry
        wrong = (jnp.exp(log_softmax(V @ X.T + c[:, None], rows)) - Y) / n
        gradient = wrong @ X + penalty * V
        W_next = V - jax.scipy.linalg.cho_solve(factor, gradient.T).T
        b_next = c - 2 * wrong.sum(axis=1)
        along = by_concept((gradient * (W_next - W)).sum(axis=1) + wrong.sum(axis=1) * (b_next - b))
        t = jnp.where(along > 0, 1.0, t)
        t_next = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        momentum = ((t - 1) / t_next)[each]
        ahead = W_next + momentum[:, None] * (W_next - W), b_next + momentum * (b_next - b)
        return ((W_next, b_next), ahead, t_next), None

    (found, _, _), _ = jax.lax.scan(
        _step, (zero, zero, jnp.ones(len(rows))), None, length=iterations
    )
    return found


def log_softmax(scores: Float[Array, "row example"], rows: Rows) -> Float[Array, "row example"]:
    """Log-probabilities of each concept's classes."""
    return jnp.concatenate([jax.nn.log_softmax(scores[start:end], axis=0) for start, end in rows])


def right_share(
    scores: Float[Array, "class example"], values: Int[Array, " example"]
) -> Float[Array, " example"]:
    """1 where the example's class has the largest score, 1 / m where m classes share it, else 0."""
    own = jnp.take_along_axis(scores, values[None], axis=0)
    # One sum instead of an argmax, which is slow on CPU: a larger score counts more than all equal
    # ones.
    rank = jnp.where(scores > own, scores.shape[0] + 1.0, (scores == own).astype(jnp.float32)).sum(
        axis=0
    )
    return jnp.where(rank <= scores.shape[0], 1 / rank, 0.0)


def turns(classes: int) -> tuple[int, ...]:
    """The frequencies k at which the angles 2 pi k c / classes of all classes differ, up to half of
    them.
    """
    return tuple(k for k in range(1, classes // 2 + 1) if gcd(k, classes) == 1) or (1,)


def angle_scores(
    scores: Float[Array, "class example"], trained: Float[Array, "class trained"]
) -> Float[Array, "class example"]:
    """Scores of classes by their angles at the frequency that explains most of the training
    examples.

    Ridge regression onto (cos, sin)(2 pi k c / C) of the class c of C is, being linear in its
    targets, the sum over classes of ridge scores times these; a class's score is the
    cosine-weighted agreement of its angle with the prediction. k, coprime to C, is chosen by the
    share of the variance of the training targets that is explained. Classes never seen have an
    angle too.

    Args:
        scores: ridge scores of all examples, the training ones first. trained: Y of the training
            examples.
    """
    classes, n = trained.shape
    angles = 2 * np.pi * np.outer(turns(classes), np.arange(classes)) / classes
    waves = jnp.asarray(
        np.stack([np.cos(angles), np.sin(angles)], axis=1), jnp.float32
    )  # [frequency part class]
    predicted = jnp.einsum("kpc,cn->kpn", waves, scores)
    target = jnp.einsum("kpc,cn->kpn", waves, trained)
    missed = jnp.square(target - predicted[..., :n]).sum(axis=(1, 2))
    varied = jnp.square(target - target.mean(axis=2, keepdims=True)).sum(axis=(1, 2))
    best = jnp.argmin(missed / jnp.where(varied == 0, jnp.inf, varied))
    return jnp.einsum("pc,pn->cn", waves[best], predicted[best])
