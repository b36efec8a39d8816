"""Curvature against eigvalsh of the full Hessian, known spectra, and gradient descent."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mi_jax.basics.errors import ConfigError
from mi_jax.landscape import curvature

_KEY = jax.random.key(0)


def _net(d: int, hidden: int) -> tuple[Any, Any, np.ndarray]:
    """Loss of a tanh network, its parameters, and the eigenvalues of its Hessian, descending."""
    keys = jax.random.split(jax.random.key(d), 4)
    x, y = jax.random.normal(keys[0], (64, d)), jax.random.normal(keys[1], (64, 2))
    params = {
        "in": jax.random.normal(keys[2], (d, hidden)) / d**0.5,
        "out": jax.random.normal(keys[3], (hidden, 2)) / hidden**0.5,
    }

    def loss(w: Any) -> jax.Array:
        return ((jnp.tanh(x @ w["in"]) @ w["out"] - y) ** 2).mean()

    flat, unravel = ravel_pytree(params)
    H = np.asarray(jax.hessian(lambda w: loss(unravel(w)))(flat), np.float64)
    return loss, params, np.linalg.eigvalsh(H)[::-1]


@pytest.mark.parametrize(
    ("d", "hidden", "order"), [(4, 6, 36), pytest.param(30, 15, 80, marks=pytest.mark.slow)]
)
def test_lanczos_finds_the_top_eigenvalues_of_a_network(d: int, hidden: int, order: int) -> None:
    loss, params, exact = _net(d, hidden)
    found = jax.jit(lambda w: curvature.top_eigenvalues(loss, w, most=3, order=order, key=_KEY))(
        params
    )
    np.testing.assert_allclose(found, exact[:3], rtol=1e-5)


def test_lanczos_of_full_order_finds_every_eigenvalue_and_no_ghost() -> None:
    """Without reorthogonalisation, the top of this spectrum of four decades would be copied."""
    rng = np.random.default_rng(0)
    values = np.sort(np.concatenate([[100.0, 50.0], rng.uniform(-1, 1, 38)]))[::-1]
    Q = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    H = jnp.asarray(Q @ np.diag(values) @ Q.T, jnp.float32)
    found = jax.jit(lambda start: curvature.lanczos(lambda v: H @ v, start, 40))(
        jax.random.normal(_KEY, (40,))
    )
    np.testing.assert_allclose(found.values, values, atol=1e-5 * 100)
    np.testing.assert_allclose(found.weights.sum(), 1, rtol=1e-5)


def test_an_exhausted_space_is_left_without_weight() -> None:
    """With two distinct eigenvalues, two steps exhaust the Krylov space."""
    h = jnp.array([3.0, 3.0, -1.0, -1.0, -1.0])
    found = jax.jit(lambda start: curvature.lanczos(lambda v: h * v, start, 5))(jnp.ones(5))
    reached = np.asarray(found.weights) > 1e-6
    np.testing.assert_allclose(np.asarray(found.values)[reached], [3, -1], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(found.weights)[reached], [0.4, 0.6], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(found.residuals)[reached], 0, atol=1e-5)


def test_equal_eigenvalues_are_found_with_their_multiplicity() -> None:
    """The Krylov space of one vector has two distinct eigenvalues. The other entries must be true
    copies, not zeros; a zero would even be the largest.
    """
    h = jnp.array([-1.0, -1.0, -3.0, -3.0, -3.0])
    found = jax.jit(lambda start: curvature.lanczos(lambda v: h * v, start, 5))(jnp.ones(5))
    np.testing.assert_allclose(found.values, h, rtol=1e-5)
    top = curvature.top_eigenvalues(lambda w: -(w**2).sum(), jnp.ones(4), most=2, order=4, key=_KEY)
    np.testing.assert_allclose(top, [-2, -2], rtol=1e-5)


def test_curvature_is_computed_in_the_precision_of_the_parameters() -> None:
    with jax.enable_x64(True):
        loss, h = (
            lambda w: 0.5 * (jnp.array([1.0, 2.0, 4.0], w.dtype) * w**2).sum(),
            [1.0, 2.0, 4.0],
        )
        for dtype, rtol in ((jnp.float64, 1e-13), (jnp.float32, 1e-5)):
            w = jnp.ones(3, dtype)
            top = curvature.top_eigenvalues(loss, w, most=3, order=3, key=_KEY)
            trace = curvature.hessian_trace(loss, w, probes=2, key=_KEY).trace
            density = curvature.spectral_density(loss, w, probes=2, order=3, key=_KEY).density
            assert top.dtype == trace.dtype == density.dtype == dtype
            np.testing.assert_allclose(top, h[::-1], rtol=rtol)
            np.testing.assert_allclose(trace, 7, rtol=rtol)


def test_the_density_integrates_to_one_and_has_the_spectrums_mean_and_mass() -> None:
    h = jnp.concatenate([jnp.zeros(150), jnp.full(50, 4.0)])
    loss = lambda w: 0.5 * (h * w**2).sum()  # noqa: E731
    found = jax.jit(lambda w: curvature.spectral_density(loss, w, probes=8, order=4, key=_KEY))(
        jnp.ones(200)
    )
    at, density = np.asarray(found.at, np.float64), np.asarray(found.density, np.float64)
    assert np.trapezoid(density, at) == pytest.approx(1, abs=1e-3)
    assert np.trapezoid(density[at > 2], at[at > 2]) == pytest.approx(0.25, abs=0.05)
    assert np.trapezoid(density * at, at) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("h", [0.0, 1.0, -300.0])
def test_the_density_of_equal_eigenvalues_is_one_bell_at_them(h: float) -> None:
    found = curvature.spectral_density(lambda w: 0.5 * h * (w**2).sum(), jnp.ones(5), key=_KEY)
    weights = np.asarray(found.density, np.float64) * np.gradient(np.asarray(found.at, np.float64))
    assert weights.sum() == pytest.approx(1, abs=1e-3)
    assert (weights * found.at).sum() == pytest.approx(h, abs=1e-3 * max(abs(h), 1))


def test_the_trace_is_exact_for_a_diagonal_hessian_and_within_its_error_otherwise() -> None:
    h = jnp.arange(1.0, 6.0)
    found = curvature.hessian_trace(
        lambda w: 0.5 * (h * w**2).sum(), jnp.ones(5), probes=4, key=_KEY
    )
    assert float(found.trace) == pytest.approx(15)
    assert float(found.standard_error) == pytest.approx(0, abs=1e-5)
    loss, params, exact = _net(4, 6)
    found = jax.jit(lambda w: curvature.hessian_trace(loss, w, probes=200, key=_KEY))(params)
    assert (
        abs(float(found.trace) - exact.sum()) < 4 * float(found.standard_error) < 0.3 * exact.sum()
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradient_descent_on_a_quadratic_diverges_exactly_past_its_threshold(
    momentum: float,
) -> None:
    h = jnp.array([0.5, 7.0, 3.0])
    loss = lambda w: 0.5 * (h * w**2).sum()  # noqa: E731
    sharpness = float(curvature.top_eigenvalues(loss, jnp.ones(3), order=3, key=_KEY)[0])
    edge = curvature.diverges_above(sharpness, momentum=momentum)
    assert edge == pytest.approx(2 * (1 + momentum) / 7, rel=1e-5)

    def descended(rate: float) -> float:
        w, v = np.ones(3), np.zeros(3)
        for _ in range(3000):
            v = momentum * v - rate * np.asarray(h) * w
            w = w + v
        return float(np.abs(w).max())

    assert descended(0.995 * edge) < 1e-3
    assert descended(1.005 * edge) > 1e3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: curvature.lanczos(lambda v: v, jnp.ones(3), 4),
            r"order=4 must lie between 1 and 3, the number of parameters",
        ),
        (
            lambda: curvature.top_eigenvalues(
                lambda w: (w**2).sum(), jnp.ones(3), most=5, order=4, key=_KEY
            ),
            "most=5 must lie between 1 and order=4",
        ),
        (
            lambda: curvature.hessian_trace(
                lambda w: (w**2).sum(), jnp.ones(3), probes=1, key=_KEY
            ),
            "probes=1",
        ),
        (lambda: curvature.diverges_above(-1.0), "sharpness=-1.0"),
        (
            lambda: curvature.diverges_above(1.0, momentum=2.0),
            "momentum=2.0: must be at least 0 and below 1",
        ),
        (
            lambda: curvature.spectral_density(
                lambda w: (w**2).sum(), jnp.ones(3), probes=0, key=_KEY
            ),
            "probes=0, points=400",
        ),
        (
            lambda: curvature.spectral_density(
                lambda w: (w**2).sum(), jnp.ones(3), points=0, key=_KEY
            ),
            "probes=4, points=0",
        ),
        (
            lambda: curvature.top_eigenvalues(lambda w: w**2, jnp.ones(3), key=_KEY),
            "must return one number",
        ),
    ],
)
def test_invalid_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
