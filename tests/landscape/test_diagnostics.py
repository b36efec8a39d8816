"""R-hat, effective draws and standard errors, against series of known autocorrelation, direct sums
and arviz.
"""

import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.landscape import diagnose


def _autoregressive(rho: float, chains: int, draws: int, seed: int = 0) -> np.ndarray:
    """x_t = rho x_{t-1} + sqrt(1 - rho^2) xi: variance 1, autocorrelation rho^t."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(chains, draws))
    for t in range(1, draws):
        x[:, t] = rho * x[:, t - 1] + (1 - rho**2) ** 0.5 * x[:, t]
    return x


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.4])
def test_the_standard_error_is_that_of_a_series_of_known_autocorrelation(rho: float) -> None:
    """Var of the mean is near (1 + rho) / (1 - rho) / N."""
    x = _autoregressive(rho, 20, 2000)
    found = diagnose(jnp.asarray(x, jnp.float32))
    assert float(found.standard_error) == pytest.approx(
        ((1 + rho) / (1 - rho) / x.size) ** 0.5, rel=0.08
    )
    assert float(found.effective_draws) == pytest.approx(x.size * (1 - rho) / (1 + rho), rel=0.15)
    assert float(found.r_hat) == pytest.approx(1, abs=0.02)


def _by_hand(x: np.ndarray) -> tuple[float, float]:
    """R-hat and effective draws, with loops over chains and lags."""
    half = x.shape[1] // 2
    parts = [*x[:, :half], *x[:, -half:]]
    means = [sum(part) / half for part in parts]
    within = np.mean(
        [sum((part - mean) ** 2) / (half - 1) for part, mean in zip(parts, means, strict=True)]
    )
    between = sum((mean - np.mean(means)) ** 2 for mean in means) / (len(parts) - 1)
    var_plus = (half - 1) / half * within + between
    rho = [1.0]
    for lag in range(1, half):
        acov = [
            sum((p - m)[:-lag] * (p - m)[lag:]) / half for p, m in zip(parts, means, strict=True)
        ]
        rho.append(1 - (within - np.mean(acov)) / var_plus)
    tau, before, k = -1.0, np.inf, 0
    while k + 1 < half and rho[k] + rho[k + 1] > 0:
        before = min(before, rho[k] + rho[k + 1])
        tau, k = tau + 2 * before, k + 2
    if k < half:
        tau += max(rho[k], 0)
    return (var_plus / within) ** 0.5, len(parts) * half / max(tau, 1 / np.log10(len(parts) * half))


@pytest.mark.parametrize("rho", [0.0, 0.8, -0.4])
def test_r_hat_and_effective_draws_equal_loops_over_chains_and_lags(rho: float) -> None:
    x = _autoregressive(rho, 4, 60, seed=1)
    found = diagnose(jnp.asarray(x, jnp.float32))
    r_hat, effective = _by_hand(x)
    assert float(found.r_hat) == pytest.approx(r_hat, rel=1e-5)
    assert float(found.effective_draws) == pytest.approx(effective, rel=1e-4)


def test_chains_that_disagree_have_a_large_r_hat_and_few_effective_draws() -> None:
    x = _autoregressive(0.0, 4, 200) + np.array([[0.0], [0.0], [5.0], [5.0]])
    found = diagnose(jnp.asarray(x, jnp.float32))
    assert float(found.r_hat) > 2
    assert float(found.effective_draws) < 10
    assert float(found.standard_error) > 1


def test_a_drift_counts_as_disagreement() -> None:
    x = _autoregressive(0.0, 4, 200) + np.linspace(0, 6, 200)
    assert float(diagnose(jnp.asarray(x, jnp.float32)).r_hat) > 1.5


def test_draws_that_never_vary_count_as_one() -> None:
    found = diagnose(jnp.ones((3, 20)))
    assert float(found.effective_draws) == 1
    assert float(found.standard_error) == 0


def test_it_is_the_same_compiled() -> None:
    x = jnp.asarray(_autoregressive(0.7, 3, 51), jnp.float32)
    np.testing.assert_allclose(jax.jit(diagnose)(x), diagnose(x), rtol=1e-5)


def _arviz() -> types.ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "arviz", reason="arviz, an oracle of the extra `dev`, is not installed here"
        )


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95, -0.4])
@pytest.mark.parametrize("shape", [(4, 150), (3, 1000), (2, 301)])
def test_arviz_gives_the_same(rho: float, shape: tuple[int, int]) -> None:
    arviz = _arviz()
    x = _autoregressive(rho, *shape, seed=3) * 2e-3 + 7
    found = diagnose(jnp.asarray(x - 7, jnp.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        r_hat, effective = float(arviz.rhat(x, method="split")), float(arviz.ess(x, method="mean"))
    assert float(found.r_hat) == pytest.approx(r_hat, rel=1e-4)
    assert float(found.effective_draws) == pytest.approx(effective, rel=1e-3)
    half = shape[1] // 2
    within = np.concatenate([x[:, :half], x[:, -half:]]).var(axis=1, ddof=1).mean()
    assert float(found.standard_error) == pytest.approx(
        r_hat * np.sqrt(within / effective), rel=1e-3
    )
