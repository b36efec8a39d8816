"""The exact cross-entropy against arbitrary precision, in value and gradient, and the weighted mean
that is trained.
"""

from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from mi_jax.contracts import mean_loss
from mi_jax.training.losses import LOSSES, CrossEntropy, exact_cross_entropy

mpmath.mp.dps = 60
_CLASSES = 7
_SMALLEST = float(np.finfo(np.float32).tiny)


def _logits(margin: float) -> np.ndarray:
    """One right answer above wrong ones that differ, in float32."""
    wrong = np.array([0.0, -0.5, -3.0, -1.25, -20.0, -0.125])
    return np.concatenate([[margin], wrong]).astype(np.float32)


def _exact(logits: np.ndarray, target: int) -> tuple[Any, list[Any]]:
    """The loss and its gradient, from the float32 logits as given, in 60 digits."""
    weights = [mpmath.exp(mpmath.mpf(float(z))) for z in logits]
    total = mpmath.fsum(weights)
    wrong = mpmath.fsum(w for i, w in enumerate(weights) if i != target)
    gradient = [w / total for w in weights]
    gradient[target] = -wrong / total
    return mpmath.log1p(wrong / weights[target]), gradient


def _check(logits: np.ndarray, relative: float) -> None:
    value, gradient = jax.value_and_grad(exact_cross_entropy)(jnp.asarray(logits), jnp.array(0))
    exact_value, exact_gradient = _exact(logits, 0)
    pairs = [
        (float(value), exact_value),
        *zip(np.asarray(gradient, np.float64).tolist(), exact_gradient, strict=True),
    ]
    for ours, exact in pairs:
        # Below the smallest normal float32 processors may give 0.
        if abs(exact) >= _SMALLEST:
            assert abs(ours / exact - 1) < relative
        else:
            assert abs(ours) <= _SMALLEST


@pytest.mark.parametrize("margin", [-30, 0, *range(1, 89)])
def test_value_and_gradient_are_exact_at_every_margin(margin: int) -> None:
    _check(np.array([margin, 0], np.float32), relative=1e-6)


@pytest.mark.parametrize("margin", [-30, 0, *range(1, 88, 6), 40])
def test_with_many_classes_all_that_is_lost_is_the_rounding_of_the_margin(margin: int) -> None:
    # The margin to the logsumexp of the wrong ones is rounded to float32: e^-margin is off by half
    # a unit in its last place.
    _check(_logits(margin), relative=1e-6 + abs(margin) * 2.0**-24)


def test_at_a_margin_of_forty_the_usual_form_is_zero_and_this_one_is_not() -> None:
    logits = jnp.array([40.0, 0.0])
    assert float(-jax.nn.log_softmax(logits)[0]) == 0.0
    assert float(exact_cross_entropy(logits, jnp.array(0))) == pytest.approx(
        float(mpmath.exp(-40)), rel=1e-6
    )


@pytest.mark.parametrize("seed", range(3))
def test_for_ordinary_logits_it_is_the_usual_cross_entropy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(3 * rng.normal(size=(5, 2, _CLASSES)), jnp.float32)
    targets = jnp.asarray(rng.integers(_CLASSES, size=(5, 2)))

    def usual(logits: jax.Array) -> jax.Array:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]

    np.testing.assert_allclose(
        exact_cross_entropy(logits, targets), usual(logits), rtol=2e-6, atol=1e-6
    )
    ours, theirs = (
        jax.grad(lambda x, f=f: f(x).sum())(logits)
        for f in (lambda x: exact_cross_entropy(x, targets), usual)
    )
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("target", [-1, _CLASSES])
def test_a_target_that_is_no_class_gives_nan(target: int) -> None:
    loss = exact_cross_entropy(jnp.stack([jnp.asarray(_logits(2.0))] * 2), jnp.array([target, 1]))
    assert np.isnan(loss[0])
    assert np.isfinite(loss[1])


def test_a_position_without_weight_may_be_nan() -> None:
    each, weights = jnp.array([[1.0, jnp.nan], [3.0, jnp.inf]]), jnp.array([[1.0, 0.0], [3.0, 0.0]])
    assert float(mean_loss(each, weights)) == 2.5
    assert np.isnan(mean_loss(each, jnp.ones((2, 2))))


@pytest.mark.parametrize("margin", [0, 5, 20, 40, 80])
def test_the_gradient_sums_to_zero(margin: float) -> None:
    gradient = np.asarray(
        jax.grad(exact_cross_entropy)(jnp.asarray(_logits(margin)), jnp.array(0)), np.float64
    )
    assert gradient[0] < 0
    assert abs(gradient.sum()) < 1e-6 * np.abs(gradient).sum()


def test_equal_logits_cost_the_logarithm_of_the_classes_and_shifts_cost_nothing() -> None:
    assert float(exact_cross_entropy(jnp.zeros(113), jnp.array(5))) == pytest.approx(
        np.log(113), rel=1e-6
    )
    logits = jnp.asarray(_logits(3.0))
    shifted = exact_cross_entropy(logits + 64.0, jnp.array(0))
    assert float(shifted) == pytest.approx(
        float(exact_cross_entropy(logits, jnp.array(0))), rel=1e-5
    )


def test_a_logit_that_is_not_finite_shows() -> None:
    logits = jnp.asarray(_logits(3.0)).at[2].set(jnp.nan)
    assert bool(jnp.isnan(exact_cross_entropy(logits, jnp.array(0))))
    assert bool(jnp.isnan(exact_cross_entropy(logits, jnp.array(2))))


def test_the_loss_of_an_experiment_is_this_one_by_position() -> None:
    logits, targets = (
        jnp.asarray(np.stack([_logits(1.0), _logits(9.0)])[:, None]),
        jnp.array([[0], [3]]),
    )
    assert isinstance(LOSSES["cross_entropy"](), CrossEntropy)
    losses = CrossEntropy()(logits, targets)
    exact = [
        [float(_exact(row[0], int(y[0]))[0])]
        for row, y in zip(np.asarray(logits), np.asarray(targets), strict=True)
    ]
    np.testing.assert_allclose(losses, exact, rtol=1e-6)


def test_the_trained_loss_is_the_mean_over_the_weights() -> None:
    each, weights = jnp.array([[1.0, 2.0], [4.0, 8.0]]), jnp.array([[1.0, 0.0], [0.5, 2.0]])
    assert float(mean_loss(each, weights)) == pytest.approx((1 + 2 + 16) / 3.5, rel=1e-6)
    assert float(mean_loss(each, jnp.ones((2, 2)))) == pytest.approx(15 / 4, rel=1e-6)
    gradient = jax.grad(lambda x: mean_loss(x, weights))(each)
    np.testing.assert_allclose(gradient, np.asarray(weights) / 3.5, rtol=1e-6)
