"""Twins of curvature and of the learning coefficient, on whole Hessians and quadratic losses."""

import dataclasses
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of
from networks import ALWAYS, CASES, Network, assert_twin, network, read

from mi_jax.contracts import Context, Model
from mi_jax.landscape import (
    hessian_trace,
    measure_sharpness,
    spectral_density,
)
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.losses import MSE

GRID = [
    pytest.param(*case, marks=() if case in ALWAYS[3:4] else pytest.mark.long) for case in CASES
]
"""The cases: programs with loops compile slowly, so that p = 6 alone is read always."""


# --- Curvature


def _gradient(net: Network, flat: np.ndarray, unravel: Any) -> np.ndarray:
    """Gradient of the training loss in all parameters, in their flat order."""
    params, p, pairs = unravel(flat), net.p, net.trained
    E_a, E_b, U = (
        params["embed_a"]["W_E"],
        params["embed_b"]["W_E"],
        params["unembed"]["W_U"],
    )
    a, b = np.divmod(pairs, p)
    pre = E_a[a] + E_b[b]
    logits = pre**2 @ U
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    wrong = (e / e.sum(axis=1, keepdims=True) - np.eye(U.shape[1])[net.labels[pairs]]) / len(pairs)
    into = 2 * pre * (wrong @ U.T)
    d_a, d_b = np.zeros_like(E_a), np.zeros_like(E_b)
    np.add.at(d_a, a, into)
    np.add.at(d_b, b, into)
    return np.concatenate([x.ravel() for x in (d_a, d_b, (pre**2).T @ wrong)])


def _unravel(net: Network) -> tuple[np.ndarray, Any]:
    """The parameters as one float64 vector, and the function that undoes it."""
    leaves, structure = jax.tree.flatten(net.params)
    arrays = [np.asarray(leaf, np.float64) for leaf in leaves]
    ends = np.cumsum([array.size for array in arrays])[:-1]

    def unravel(flat: np.ndarray) -> Any:
        parts = np.split(flat, ends)
        return structure.unflatten(
            [part.reshape(x.shape) for part, x in zip(parts, arrays, strict=True)]
        )

    return np.concatenate([array.ravel() for array in arrays]), unravel


@lru_cache
def _hessian(p: int, operation: Any, weights: Any) -> np.ndarray:
    """Hessian of the training loss, by central differences of its gradient."""
    net = network(p, operation, weights)
    flat, unravel = _unravel(net)
    h = 1e-5
    rows = []
    for i in range(len(flat)):
        step = h * np.eye(1, len(flat), i)[0]
        rows.append(_gradient(net, flat + step, unravel) - _gradient(net, flat - step, unravel))
    H = np.array(rows) / (2 * h)
    assert abs(H - H.T).max() < 1e-8 * max(1, abs(H).max())
    return (H + H.T) / 2


def _krylov_top(H: np.ndarray, start: np.ndarray, order: int) -> float:
    """Largest eigenvalue of H within the span of start, H start, ..., H^(order - 1) start."""
    basis = [start / np.linalg.norm(start)]
    for _ in range(order - 1):
        v = H @ basis[-1]
        size = np.linalg.norm(v)
        for _ in range(2):
            v = v - sum(b * (b @ v) for b in basis)
        if np.linalg.norm(v) < 1e-9 * size:
            break
        basis.append(v / np.linalg.norm(v))
    B = np.array(basis)
    return float(np.linalg.eigvalsh(B @ H @ B.T)[-1])


@pytest.mark.parametrize(("p", "operation", "weights"), GRID)
def test_sharpness_is_the_largest_eigenvalue_in_its_krylov_space(
    p: int, operation: Any, weights: Any
) -> None:
    net, H = network(p, operation, weights), _hessian(p, operation, weights)
    start = np.asarray(jax.random.normal(jax.random.key(0), (len(H),)), np.float64)
    value = net.read("sharpness")["sharpness"]
    assert_twin(value, _krylov_top(H, start, 20))
    top = np.linalg.eigvalsh(H)[-1]
    assert 0.9 * top < value < top * (1 + 1e-5)


@pytest.mark.parametrize("weights", ["random", "trained"])
def test_sharpness_of_enough_products_is_the_largest_eigenvalue(weights: Any) -> None:
    net, H = network(3, "subtract", weights), _hessian(3, "subtract", weights)
    measure = measure_sharpness(order=60)
    value = jax.jit(measure.read)(net.params, net.context)[measure.name]
    assert_twin(np.asarray(value), np.linalg.eigvalsh(H)[-1])


def _quadratic(eigenvalues: np.ndarray) -> tuple[np.ndarray, Any]:
    """A Hessian with these eigenvalues, and the loss w H w / 2."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(len(eigenvalues), len(eigenvalues))))[0]
    H = Q @ np.diag(eigenvalues) @ Q.T
    H32 = jnp.asarray(H, jnp.float32)
    return H, lambda w: 0.5 * w @ H32 @ w


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_the_density_of_a_quadratic_is_its_formula(low: float) -> None:
    H, loss = _quadratic(np.linspace(low, 3, 9))
    density = spectral_density(
        loss, jnp.ones(9), probes=3, order=9, points=50, width=0.05, key=jax.random.key(1)
    )
    values, vectors = np.linalg.eigh(H)
    sigma = 0.05 * (values[-1] - values[0])
    at = np.linspace(values[0] - 4 * sigma, values[-1] + 4 * sigma, 50)
    starts = np.asarray(jax.random.normal(jax.random.key(1), (3, 9)), np.float64)
    expected = np.zeros(50)
    for start in starts:
        weights = np.square(vectors.T @ start) / np.square(start).sum()
        for value, weight in zip(values, weights, strict=True):
            bell = np.exp(-np.square((at - value) / sigma) / 2) / sigma / np.sqrt(2 * np.pi)
            expected += weight * bell / len(starts)
    assert_twin(np.asarray(density.at), at)
    assert_twin(np.asarray(density.density), expected)


def test_the_trace_of_a_quadratic_is_its_formula() -> None:
    H, loss = _quadratic(np.linspace(-1, 3, 9))
    trace = hessian_trace(loss, jnp.ones(9), probes=16, key=jax.random.key(2))
    signs = np.asarray(jax.random.rademacher(jax.random.key(2), (16, 9), jnp.float32), float)
    values = np.einsum("vi,ij,vj->v", signs, H, signs)
    assert_twin(np.asarray(trace.trace), values.mean())
    assert_twin(np.asarray(trace.standard_error), values.std(ddof=1) / 4)
    assert abs(trace.trace - np.trace(H)) < 4 * trace.standard_error


# --- Learning coefficient


class Quadratic(NamedTuple):
    """A table of outputs W[a p + b] under a squared error, which is quadratic in W.

    Attributes:
        task: addition or subtraction.
        params: the float32 table.
        context: context with the squared error as loss.
    """

    task: ModularArithmetic
    params: Any
    context: Context

    @property
    def target(self) -> np.ndarray:
        """One-hot answers of all pairs."""
        a, b = np.divmod(np.arange(self.task.p**2), self.task.p)
        return np.eye(self.task.p)[(a + b if self.task.operation == "add" else a - b) % self.task.p]


@lru_cache
def _table_model(p: int) -> Model:
    def apply(params: Any, inputs: Any, *, taps: Any = None, positions: Any = None) -> jax.Array:
        return params["W"][inputs[:, 0] * p + inputs[:, 1]][:, None]

    return Model(lambda key: {}, apply)


@lru_cache
def _quadratic_network(p: int, operation: Any, weights: Any) -> Quadratic:
    task = ModularArithmetic(p=p, operation=operation, fraction=0.6)
    context = context_of(task, model=_table_model(p), loss=MSE())
    net = Quadratic(task, None, context)
    noise = np.random.default_rng(p).normal(size=(p * p, p))
    # The squared error is least at the one-hot answers.
    W = net.target if weights == "trained" else net.target + 0.3 * noise
    return net._replace(params={"W": jnp.asarray(W, jnp.float32)})


class Chains(NamedTuple):
    """Chains of localised SGLD in float64, [chain step].

    Attributes:
        loss: training loss before each step.
        distance: distance from the start.
        acceptance: probability that a Metropolis step would have accepted the move to a position.
        bias: part of n_beta L that is due to finite steps.
    """

    loss: np.ndarray
    distance: np.ndarray
    acceptance: np.ndarray
    bias: np.ndarray


_BURN_IN, _DRAWS, _CHAINS, _GAMMA, _EPSILON = 50, 150, 4, 1000.0, 5e-5


def _chains(net: Quadratic, n_beta: float) -> Chains:
    p, steps = net.task.p, _BURN_IN + _DRAWS
    trained = net.task.order()[: net.task.trained]
    start = np.asarray(net.params["W"], np.float64)
    each: list[list[list[float]]] = []

    def energy(W: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        wrong = W[trained] - net.target[trained]
        loss, slope = np.square(wrong).mean(), np.zeros_like(W)
        slope[trained] = 2 * wrong / wrong.size
        return loss, slope, n_beta * slope + _GAMMA * (W - start)

    def log_move(before: np.ndarray, after: np.ndarray) -> float:
        """Log-density of a step, but for a constant."""
        expected = before - _EPSILON / 2 * energy(before)[2]
        return -np.square(after - expected).sum() / (2 * _EPSILON)

    def log_target(W: np.ndarray) -> float:
        return -n_beta * energy(W)[0] - _GAMMA / 2 * np.square(W - start).sum()

    for key in jax.random.split(jax.random.key(0), _CHAINS):
        keys = jax.random.split(jax.random.split(key)[1], steps)
        noise = jax.vmap(lambda key: jax.random.normal(jax.random.split(key)[0], (p**3,)))(keys)
        W, before, rows = start, None, []
        for xi in np.asarray(noise, np.float64).reshape(steps, p * p, p):
            loss, slope, force = energy(W)
            accepted = np.nan
            if before is not None:
                log = log_move(W, before) - log_move(before, W)
                accepted = np.exp(min(0.0, log + log_target(W) - log_target(before)))
            bias = _EPSILON / 8 * n_beta * (slope * force).sum()
            rows.append([loss, np.linalg.norm(W - start), accepted, bias])
            before, W = W, W - _EPSILON / 2 * force + np.sqrt(_EPSILON) * xi
        each.append(rows)
    return Chains(*np.moveaxis(np.array(each), 2, 0))


def _r_hat(draws: np.ndarray) -> tuple[float, float]:
    """Split R-hat, and the variance that the chains estimate together."""
    half = draws.shape[1] // 2
    halves = np.concatenate([draws[:, :half], draws[:, -half:]])
    within = halves.var(axis=1, ddof=1).mean()
    var_plus = (half - 1) / half * within + halves.mean(axis=1).var(ddof=1)
    return np.sqrt(var_plus / within), var_plus


@pytest.mark.parametrize(("p", "operation", "weights"), GRID)
def test_the_learning_coefficient_of_a_quadratic_is_its_formula(
    p: int, operation: Any, weights: Any
) -> None:
    net, name = _quadratic_network(p, operation, weights), "learning_coefficient"
    n = net.task.trained
    n_beta = n / np.log(n)
    context = dataclasses.replace(net.context, prepared={f"{name}_n_beta": n_beta})
    values = read((name,), net.params, context)
    chains = _chains(net, n_beta)
    draws = chains.loss[:, _BURN_IN:]
    start = np.asarray(net.params["W"], np.float64) - net.target
    baseline = np.square(start[net.task.order()[:n]]).mean()
    by_chain = n_beta * (draws.mean(axis=1) - baseline)
    coefficient = by_chain.mean()
    r_hat, var_plus = _r_hat(draws)
    bias = chains.bias[:, _BURN_IN:].mean()
    below = (draws < baseline).mean()
    localisation = 1 - n_beta**2 * draws.var() / coefficient if coefficient > 0 else np.nan
    effective = values[f"{name}_effective_draws"]
    expected = {
        "_loss_trace": chains.loss,
        "_distance": chains.distance[:, _BURN_IN:].mean(),
        "_acceptance": chains.acceptance[:, _BURN_IN:].mean(),
        "_r_hat": r_hat,
        "_share_below_start": below,
        "_se": n_beta * np.sqrt(var_plus / effective),
    }
    for suffix, value in expected.items():
        assert_twin(values[f"{name}{suffix}"], value, suffix)
    # What follows are differences of losses, whose size is what rounds it.
    size = 1e-5 * max(n_beta * baseline, abs(by_chain).max())
    differences = {
        "": coefficient,
        "_by_chain": by_chain,
        "_baseline_loss": baseline,
        "_discretisation_bias": bias,
        "_localisation": localisation,
    }
    for suffix, value in differences.items():
        np.testing.assert_allclose(
            values[f"{name}{suffix}"], value, rtol=0, atol=size, err_msg=suffix
        )
    flags = {
        "diverged": coefficient > 0 and bias >= coefficient,
        "epsilon_too_large": not bias <= 0.1 * abs(coefficient),
        "negative": coefficient < 0,
        "below_start": below > 0.1,
        "unmixed": not r_hat <= 1.1,
    }
    for flag, value in flags.items():
        assert values[f"{name}_{flag}"] == value, flag
    # In closed form: every coordinate of the trained outputs is an autoregression of its own,
    # whose curvature is 2 / (n p).
    factor = 1 - _EPSILON / 2 * (n_beta * 2 / (n * p) + _GAMMA)
    taken = np.arange(_BURN_IN, _BURN_IN + _DRAWS)
    variance = _EPSILON * (1 - factor ** (2 * taken)) / (1 - factor**2)
    # Around a start that is no minimum, the loss also falls along its gradient.
    drift = start[net.task.order()[:n]][..., None] * (
        1 - n_beta * 2 / (n * p) / (n_beta * 2 / (n * p) + _GAMMA) * (1 - factor**taken)
    )
    exact = n_beta * (variance.mean() + np.square(drift).mean() - baseline)
    assert abs(values[name] - exact) < 4 * values[f"{name}_se"]
