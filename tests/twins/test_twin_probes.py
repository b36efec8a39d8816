"""Twins of probes: accuracy, selectivity, description length, and effects of edits."""

import dataclasses
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise, product
from math import gcd
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from networks import ALWAYS, CASES, RELATIVE, Network, assert_twin, network, read
from scipy.optimize import minimize

from mi_jax.basics.precision import Precision, cast, computing_in
from mi_jax.contracts import Context, Labels, Model, Reference, Subject
from mi_jax.measures.activations import CONTROL
from mi_jax.measures.linear_probes import logistic_fit, one_hot_rows, row_ranges
from mi_jax.measures.probes import Probe
from mi_jax.measuring.program import make_context
from mi_jax.measuring.registry import EXPENSIVE

ACCURACY = {
    "probe_accuracy": Probe(),
    "probe_accuracy_logistic": Probe(kind="logistic"),
    "probe_accuracy_circular": Probe(kind="circular"),
    "probe_accuracy_held_out_a": Probe(held_out="a"),
    "probe_accuracy_circular_held_out_a": Probe(kind="circular", held_out="a"),
}
SELECTIVITY = {"probe_selectivity": "probe_accuracy"}
SELECTIVITY["probe_selectivity_logistic"] = "probe_accuracy_logistic"
LENGTH = {"probe_mdl": "ridge", "probe_mdl_logistic": "logistic"}
EFFECTS = {"probe_effect": "erase", "probe_effect_steer": "steer", "probe_effect_swap": "swap"}

RIDGE = 1e-3
"""Strength of the penalty relative to the mean variance of the vectors."""


def _id(case: tuple[Any, ...]) -> str:
    return "-".join(map(str, case))


CONCEPTS = ("a", "answer", "order", "trained")
"""Concepts of p, 3 and 2 classes. Fewer of them than the task has compile much faster."""


class Probed(NamedTuple):
    """A network of ``networks``, with the context that probes read it with."""

    net: Network
    context: Context
    precision: Precision

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Values of some measures by variable, in the precision."""
        with computing_in(self.precision):
            return read(tuple(names), cast(self.net.params, self.precision), self.context)

    @property
    def sites(self) -> list[str]:
        """Sites that are probed."""
        return [site.name for site in self.context.model.sites]

    @property
    def inputs(self) -> np.ndarray:
        """Tokens a and b of all rows: the splits one after another, test first."""
        batches = self.context.batches
        return np.concatenate(
            [np.asarray(batches[split].inputs)[:, :2] for split in sorted(batches)]
        )

    @property
    def labels(self) -> list[Labels]:
        """Labels of all concepts, in the order of their names."""
        return [self.context.labels[name] for name in sorted(self.context.labels)]

    def vectors(self, tokens: np.ndarray) -> list[np.ndarray]:
        """Vectors of each site, as the forward pass computes them in its precision: what is held
        to the formula is the probe, and few examples make it magnify their rounding.
        """
        E_a, E_b, U = (
            np.asarray(x, self.precision) for x in (self.net.E_a, self.net.E_b, self.net.U)
        )
        pre = E_a[tokens[:, 0]] + E_b[tokens[:, 1]]
        values = {"hidden.0.pre": pre, "hidden.0.post": pre**2, "logits": pre**2 @ U}
        return [values[site].astype(np.float64) for site in self.sites]


@lru_cache
def _model(model: Model, sites: tuple[str, ...]) -> Model:
    """The model with some of its sites, which are the ones that are probed."""
    return dataclasses.replace(
        model, sites=tuple(site for site in model.sites if site.name in sites)
    )


@lru_cache
def _probed(p: int, operation: Any, weights: Any, precision: Precision) -> Probed:
    net = network(p, operation, weights)
    sites = ("logits",) if p == 2 else ("hidden.0.pre", "hidden.0.post")
    subject = Subject(
        _model(net.context.model, sites), net.task, net.context.loss, precision=precision
    )
    measures = [EXPENSIVE[name] for name in (*ACCURACY, *LENGTH, *EFFECTS)]
    context = make_context(subject, 0, Reference(), measures)
    labels = {name: context.labels[name] for name in CONCEPTS if name in context.labels}
    return Probed(net, dataclasses.replace(context, labels=labels), precision)


def _case(case: tuple[Any, ...], precision: str, mark: Any = pytest.mark.long) -> Any:
    """A case with its precision, read with the long tests unless it is among the chosen."""
    return pytest.param(*case, precision, marks=mark, id=f"{_id(case)}-{precision}")


_SHORT = (3, "add", "random"), (3, "subtract", "trained")

PROBED = [
    *(_case(case, "float32", ()) for case in _SHORT),
    *(_case(case, "float32") for case in CASES if case[0] == 3 and case not in _SHORT),
    *(
        _case(case, "float64", pytest.mark.slow if case in ALWAYS[1::4] else pytest.mark.long)
        for case in CASES
    ),
]
"""The cases with their precision. Programs of probes compile slowly, so that two of p = 3 are read
always, and two in float64 with the slow tests.

A fit of fewer rows than dimensions, or a subspace of nearly equal directions, amplifies the
rounding of float32 activations beyond what a twin allows. All cases are therefore read in float64.
"""


# --- Fits


def _centred(X: np.ndarray, trained: int) -> np.ndarray:
    return X - X[:trained].mean(axis=0)


def _variance(X: np.ndarray) -> float:
    v = float(np.square(X).mean())
    return v if v > 0 else 1.0


def _ridge(X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimiser of mean ||Y - W x - b||^2 + ridge v ||W||^2, for centred x."""
    penalty = RIDGE * _variance(X) * len(X) * np.eye(X.shape[1])
    return np.linalg.solve(X.T @ X + penalty, X.T @ Y).T, Y.mean(axis=0)


def _softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _logistic(X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 100 accelerated steps towards the minimum of cross-entropy + ridge v ||W||^2 / 2."""
    n, (classes, d) = len(X), (Y.shape[1], X.shape[1])
    penalty = RIDGE * _variance(X)
    M = X.T @ X / (2 * n) + penalty * np.eye(d)
    W, b = np.zeros((classes, d)), np.zeros(classes)
    V, c, t = W, b, 1.0
    for _ in range(100):
        wrong = (_softmax(X @ V.T + c) - Y) / n
        G, g = wrong.T @ X + penalty * V, wrong.sum(axis=0)
        W_next, b_next = V - np.linalg.solve(M, G.T).T, c - 2 * g
        if (G * (W_next - W)).sum() + g @ (b_next - b) > 0:
            t = 1.0
        t_next = (1 + np.sqrt(1 + 4 * t**2)) / 2
        momentum = (t - 1) / t_next
        V, c = W_next + momentum * (W_next - W), b_next + momentum * (b_next - b)
        W, b, t = W_next, b_next, t_next
    return W, b


def _scores(kind: str, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Scores of all rows of centred vectors, fitted on the first ones: as many as Y has."""
    fit = _logistic if kind == "logistic" else _ridge
    W, b = fit(X[: len(Y)], Y)
    scores = X @ W.T + b
    return scores if kind != "circular" else _by_angle(scores, Y)


def _by_angle(scores: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Scores of classes by their angle, at the frequency that explains most of the targets."""
    classes = Y.shape[1]
    coprime = [k for k in range(1, classes // 2 + 1) if gcd(k, classes) == 1] or [1]
    shares, by_frequency = [], []
    for k in coprime:
        angles = 2 * np.pi * k * np.arange(classes) / classes
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        target, predicted = Y @ circle, scores @ circle
        missed = np.square(target - predicted[: len(Y)]).sum()
        varied = np.square(target - target.mean(axis=0)).sum()
        shares.append(missed / varied if varied > 0 else 0.0)
        by_frequency.append(predicted @ circle.T)
    assert len(shares) == 1 or np.diff(np.sort(shares)[:2]) > 1e-6 or not any(shares)
    return by_frequency[int(np.argmin(shares))]


# --- Accuracy


def _right(scores: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest share of each row that is answered right, which differ for ties."""
    rows = np.arange(len(values))
    others = scores.copy()
    others[rows, values] = -np.inf
    margins = scores[rows, values] - others.max(axis=1, initial=-np.inf)
    tie = 1e-6 * max(abs(scores).max(), 1)
    return (margins > tie).astype(float), (margins > -tie).astype(float)


def _mean(shares: np.ndarray, counted: np.ndarray) -> float:
    return shares[counted].mean() if counted.any() else np.nan


def _accuracies(
    X: np.ndarray, labels: list[Labels], kind: str, order: np.ndarray, trained: int
) -> np.ndarray:
    """Least and largest accuracy on the test and training half, [concept half bound]."""
    around, accuracies = _centred(X[order], trained), []
    for concept in labels:
        values = np.asarray(concept.values)[order]
        Y = np.eye(concept.classes)[values[:trained]]
        right = _right(_scores(kind, around, Y), values)
        known = np.isin(values, values[:trained]) | (kind == "circular")
        tested = np.arange(len(values)) >= trained
        accuracies.append(
            [
                [_mean(bound, known & tested) for bound in right],
                [_mean(bound, ~tested) for bound in right],
            ]
        )
    return np.array(accuracies)


def _assert_between(value: np.ndarray, bounds: np.ndarray, name: str) -> None:
    assert np.isnan(value).tolist() == np.isnan(bounds[..., 0]).tolist(), name
    finite = np.isfinite(value)
    assert (value >= bounds[..., 0] - 1e-6)[finite].all(), name
    assert (value <= bounds[..., 1] + 1e-6)[finite].all(), name


@pytest.mark.parametrize(("p", "operation", "weights", "precision"), PROBED)
def test_accuracies_are_their_formulas(
    p: int, operation: Any, weights: Any, precision: Precision
) -> None:
    at = _probed(p, operation, weights, precision)
    values = at.read((*ACCURACY, *SELECTIVITY))
    control = np.asarray(at.context.prepared[CONTROL])[:, :2]
    for name, probe in ACCURACY.items():
        trained, tested = (np.asarray(half) for half in probe.halves(at.context))
        order = np.concatenate([trained, tested])
        assert sorted(order) == list(range(p * p))
        task, renamed = (
            np.stack(
                [
                    _accuracies(X, at.labels, probe.kind, order, len(trained))
                    for X in at.vectors(tokens)
                ]
            )
            for tokens in (at.inputs, control)
        )
        _assert_between(values[name], task[:, :, 0], name)
        _assert_between(values[f"{name}_train"], task[:, :, 1], name)
        _assert_between(values[f"{name}_control"], renamed[:, :, 0], name)
    for name, accuracy in SELECTIVITY.items():
        difference = values[accuracy] - values[f"{accuracy}_control"]
        np.testing.assert_allclose(values[name], difference, rtol=0, atol=1e-6)


# --- Fits against their closed forms


def _objective(X: np.ndarray, Y: np.ndarray, penalty: float, W: np.ndarray, b: np.ndarray) -> float:
    scores = X @ W.T + b
    below = scores - scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(below).sum(axis=1)) - (below * Y).sum(axis=1)
    return losses.mean() + penalty / 2 * np.square(W).sum()


def _least(X: np.ndarray, Y: np.ndarray, penalty: float) -> float:
    """Minimum of the objective of logistic regression."""
    (n, d), classes = X.shape, Y.shape[1]

    def both(flat: np.ndarray) -> tuple[float, np.ndarray]:
        W, b = flat[: classes * d].reshape(classes, d), flat[classes * d :]
        wrong = (_softmax(X @ W.T + b) - Y) / n
        gradient = np.concatenate([(wrong.T @ X + penalty * W).ravel(), wrong.sum(axis=0)])
        return _objective(X, Y, penalty, W, b), gradient

    start = np.zeros(classes * (d + 1))
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-14, "gtol": 1e-10}
    return float(minimize(both, start, jac=True, method="L-BFGS-B", options=options).fun)


@pytest.mark.parametrize("p", [3, 6, 13])
@pytest.mark.parametrize("concept", ["a", "answer", "trained"])
def test_logistic_regression_ends_near_its_minimum(p: int, concept: str) -> None:
    net = network(p, "add", "trained")
    a, b = np.divmod(np.arange(p * p), p)
    trained = np.isin(np.arange(p * p), net.trained)
    values = {"a": a, "answer": (a + b) % p, "trained": trained.astype(int)}[concept]
    X, classes = _centred(net.H, p * p), int(values.max()) + 1
    Y, penalty = np.eye(classes)[values], RIDGE * _variance(X)
    fitted = logistic_fit(
        jnp.asarray(X, jnp.float32),
        one_hot_rows([jnp.asarray(values)], (classes,)),
        row_ranges((classes,)),
        RIDGE,
    )
    W, b = (np.asarray(array, np.float64) for array in fitted)
    least = _least(X, Y, penalty)
    assert -1e-5 < _objective(X, Y, penalty, W, b) - least < 2e-3


# --- Description length


@pytest.mark.parametrize(("p", "operation", "weights", "precision"), PROBED)
def test_description_lengths_are_their_formula(
    p: int, operation: Any, weights: Any, precision: Precision
) -> None:
    at = _probed(p, operation, weights, precision)
    values = at.read(LENGTH)
    order = np.random.default_rng(1).permutation(p * p)
    shares = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1)
    ends = sorted({max(1, round(share * p * p)) for share in shares})
    betas = {"ridge": (0, 1, 2, 4, 8, 16, 32, 64), "logistic": (0, 0.5, 1)}
    for name, kind in LENGTH.items():
        bits = np.zeros((len(at.sites), len(at.labels)))
        for (i, X), (j, concept) in product(enumerate(at.vectors(at.inputs)), enumerate(at.labels)):
            classes = np.asarray(concept.values)[order]
            Y = np.eye(concept.classes)[classes]
            nats = np.zeros(len(betas[kind]))
            for start, end in pairwise(ends):
                around = _centred(X[order][:end], start)
                scores = _scores(kind, around, Y[:start])[start:]
                for at_beta, beta in enumerate(betas[kind]):
                    below = beta * (scores - scores.max(axis=1, keepdims=True))
                    right = below[np.arange(len(below)), classes[start:end]]
                    nats[at_beta] += (np.log(np.exp(below).sum(axis=1)) - right).sum()
            least = nats.min()
            mixture = least - np.log(np.exp(least - nats).mean())
            bits[i, j] = ends[0] * np.log2(concept.classes) + mixture / np.log(2)
        assert_twin(values[name], bits, name)


# --- Effects of edits


def _moved(outputs: np.ndarray, edited: np.ndarray) -> float:
    """Mean total variation distance of the distributions of answers."""
    return float(abs(_softmax(outputs) - _softmax(edited)).sum(axis=1).mean() / 2)


class Whitened(NamedTuple):
    """Vectors z = L^-1 (x - mean), with L L^T the covariance plus ridge v."""

    Z: np.ndarray
    L: np.ndarray


def _whitened(X: np.ndarray) -> Whitened:
    around = X - X.mean(axis=0)
    covariance = around.T @ around / len(X) + RIDGE * _variance(around) * np.eye(X.shape[1])
    L = np.linalg.cholesky(covariance)
    return Whitened(np.linalg.solve(L, around.T).T, L)


def _subspace(Z: np.ndarray, Y: np.ndarray, rank: int) -> np.ndarray:
    """Leading directions of the whitened class means, each class weighted by its share."""
    counts = Y.sum(axis=0)
    means = (Y.T @ Z) / np.maximum(counts, 1)[:, None]
    u, s, _ = np.linalg.svd((np.sqrt(counts / len(Y))[:, None] * means).T, full_matrices=False)
    assert len(s) <= rank or s[rank - 1] ** 2 - s[rank] ** 2 > 1e-4 or s[rank - 1] ** 2 < 1e-6
    return u[:, :rank] * (s[:rank] ** 2 > 1e-6)


def _frames(Z: np.ndarray, rank: int, draws: int = 20) -> np.ndarray:
    """Random frames, spanned by draws from N(0, Z^T Z / n)."""
    n, d = Z.shape
    spread = np.linalg.cholesky(Z.T @ Z / n + 1e-6 * np.eye(d))
    drawn = np.random.default_rng([2, d, rank]).normal(size=(draws, d, rank))
    return np.linalg.qr(np.einsum("de,ner->ndr", spread, drawn))[0]


@pytest.mark.parametrize(("p", "operation", "weights", "precision"), PROBED)
def test_effects_of_edits_are_their_formulas(
    p: int, operation: Any, weights: Any, precision: Precision
) -> None:
    at = _probed(p, operation, weights, precision)
    values = at.read(EFFECTS)
    edited = np.random.default_rng(2).permutation(p * p)[:512]
    after = {
        "hidden.0.pre": lambda x: x**2 @ at.net.U,
        "hidden.0.post": lambda x: x @ at.net.U,
        "logits": lambda x: x,
    }
    for name, how in EFFECTS.items():
        effects = np.zeros((len(at.sites), len(at.labels), 21))
        for (i, X), (j, concept) in product(enumerate(at.vectors(at.inputs)), enumerate(at.labels)):
            Z, L = _whitened(X)
            Y = np.eye(concept.classes)[np.asarray(concept.values)]
            rank = max(1, min(4, concept.classes - 1, X.shape[1] // 2))
            own = _subspace(Z, Y, rank)
            means = (Y.T @ Z) / np.maximum(Y.sum(axis=0), 1)[:, None]
            of_class = (Y @ means)[edited]
            for draw, Q in enumerate([own, *_frames(Z, rank)]):
                z = Z[edited]
                step = {
                    "erase": -z @ Q,
                    "swap": (np.roll(z, -1, axis=0) - z) @ Q,
                    "steer": (np.roll(of_class, -1, axis=0) - of_class) @ own,
                }[how]
                outputs, moved = X[edited], X[edited] + step @ (L @ Q).T
                run = after[at.sites[i]]
                effects[i, j, draw] = _moved(run(outputs), run(moved))
        # Steering follows each direction's own sign, which no decomposition fixes.
        if how == "steer":
            np.testing.assert_allclose(
                values[name], effects[..., 0], rtol=0, atol=RELATIVE * effects.max()
            )
            continue
        assert_twin(values[name], effects[..., 0], name)
        assert_twin(values[f"{name}_null"], effects[..., 1:], name)
