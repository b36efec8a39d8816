"""Losses other than the exact cross-entropy: formulas, gradients by finite differences in float64,
and limits.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.contracts import Loss
from mi_jax.training import MSE, CrossEntropy, Hinge, LogSoftmaxCrossEntropy, StableMax
from mi_jax.training.losses import LOSSES

_RNG = np.random.default_rng(0)
_LOGITS = 3 * _RNG.normal(size=(6, 2, 5))
_TARGETS = _RNG.integers(5, size=(6, 2))


def _s(z: np.ndarray) -> np.ndarray:
    return np.where(z >= 0, z + 1, 1 / (1 - np.minimum(z, 0)))


def _by_hand(loss: Loss, z: np.ndarray, y: int) -> float:
    """The formula for one answer, in float64."""
    others = np.delete(z, y)
    match loss:
        case CrossEntropy() | LogSoftmaxCrossEntropy():
            return float(-z[y] + np.log(np.exp(z).sum()))
        case StableMax():
            return float(-np.log(_s(z)[y] / _s(z).sum()))
        case MSE():
            return float((sum(others**2) + (z[y] - 1) ** 2) / len(z))
        case _:
            return float(max(0.0, 1 - z[y] + max(others)))


ALL = [*(make() for make in LOSSES.values()), StableMax(exact=True)]


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_values_are_those_of_the_formula(loss: Loss) -> None:
    values = loss(jnp.asarray(_LOGITS, jnp.float32), jnp.asarray(_TARGETS))
    expected = [
        [_by_hand(loss, z, y) for z, y in zip(*row, strict=True)]
        for row in zip(_LOGITS, _TARGETS, strict=True)
    ]
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_gradients_are_finite_differences(loss: Loss) -> None:
    with jax.enable_x64(True):
        total = jax.jit(lambda z: loss(z, jnp.asarray(_TARGETS)).sum())
        gradient = np.asarray(jax.grad(total)(jnp.asarray(_LOGITS)))
        assert gradient.dtype == np.float64
        for index in [
            (0, 0, 0),
            (1, 1, _TARGETS[1, 1]),
            (2, 0, _TARGETS[2, 0]),
            (3, 1, 4),
            (5, 0, 2),
        ]:
            step = np.zeros_like(_LOGITS)
            step[index] = 1e-6
            difference = (
                total(jnp.asarray(_LOGITS + step)) - total(jnp.asarray(_LOGITS - step))
            ) / 2e-6
            assert gradient[index] == pytest.approx(float(difference), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize("target", [-1, 5])
def test_a_target_that_is_no_class_gives_nan_and_leaves_the_others(loss: Loss, target: int) -> None:
    targets = jnp.asarray(_TARGETS).at[0, 0].set(target)
    assert np.isnan(loss(jnp.asarray(_LOGITS, jnp.float32), targets)).sum() == 1


@pytest.mark.parametrize("margin", [17, 20, 60])
def test_the_usual_cross_entropy_bottoms_out_and_the_exact_one_does_not(margin: float) -> None:
    logits, targets = jnp.array([[[margin, 0.0, -1.0]]], jnp.float32), jnp.zeros((1, 1), int)

    def read(loss: Loss) -> tuple[float, Any]:
        value, gradient = jax.value_and_grad(lambda z: loss(z, targets).sum())(logits)
        return float(value), np.asarray(gradient)[0, 0]

    usual, usual_gradient = read(LogSoftmaxCrossEntropy())
    exact, exact_gradient = read(CrossEntropy())
    expected = np.exp(-margin) * (1 + np.exp(-1))
    assert usual == 0.0 or (margin == 17 and usual < 1.3e-7)
    assert usual_gradient[0] == 0.0
    assert exact == pytest.approx(expected, rel=1e-5)
    assert exact_gradient[0] == pytest.approx(-expected, rel=1e-5)


@pytest.mark.parametrize("size", [1e3, 1e10, 1e30, 3e38])
@pytest.mark.parametrize("exact", [False, True])
def test_stablemax_of_extreme_logits_is_finite_with_its_gradient(size: float, exact: bool) -> None:
    logits = jnp.array([[[size, -size, 0.0]]], jnp.float32)
    for target in range(3):
        value, gradient = jax.value_and_grad(
            lambda z, y=target: StableMax(exact)(z, jnp.full((1, 1), y)).sum()
        )(logits)
        assert bool(jnp.isfinite(value)), (size, target)
        assert bool(jnp.isfinite(gradient).all()), (size, target)
    # log(1 + size + 1 / (1 + size) + 1) - log(1 / (1 + size)) is about 2 log size.
    assert float(StableMax(exact)(logits, jnp.ones((1, 1), int))[0, 0]) == pytest.approx(
        2 * np.log(size), rel=2e-3
    )


def test_stablemax_teaches_where_outputs_are_zero() -> None:
    gradient = jax.grad(lambda z: StableMax()(z, jnp.zeros((1, 1), int)).sum())(
        jnp.zeros((1, 1, 4))
    )
    np.testing.assert_allclose(gradient[0, 0], [-0.75, 0.25, 0.25, 0.25], rtol=1e-6)


def test_stablemax_teaches_at_margins_where_softmax_is_one_hot() -> None:
    logits, targets = jnp.array([[[100.0, 0.0]]]), jnp.zeros((1, 1), int)
    losses = {
        loss: float(loss(logits, targets)[0, 0]) for loss in (LogSoftmaxCrossEntropy(), StableMax())
    }
    assert losses[LogSoftmaxCrossEntropy()] == 0.0
    assert losses[StableMax()] == pytest.approx(np.log(102 / 101), rel=1e-4)


def test_a_network_that_says_nothing_has_a_squared_error_of_one_over_its_outputs() -> None:
    losses = MSE()(jnp.zeros((3, 1, 97)), jnp.array([[0], [50], [96]]))
    np.testing.assert_allclose(losses, 1 / 97, rtol=1e-6)


@pytest.mark.parametrize("z", [-3.0, -0.5, 0.0, 0.25, 1.0, 2.0])
def test_one_output_is_compared_with_minus_one_and_one(z: float) -> None:
    outputs = jnp.full((3, 1, 1), z, jnp.float32)
    targets = jnp.array([[0], [1], [2]])
    np.testing.assert_allclose(
        Hinge()(outputs, targets)[:2, 0], [max(0, 1 + z), max(0, 1 - z)], rtol=1e-6
    )
    np.testing.assert_allclose(
        MSE()(outputs, targets)[:2, 0], [(z + 1) ** 2, (z - 1) ** 2], rtol=1e-6
    )
    assert np.isnan(Hinge()(outputs, targets)[2, 0])
    assert np.isnan(MSE()(outputs, targets)[2, 0])
    two = jnp.concatenate([jnp.full((3, 1, 1), 7.0 - z), jnp.full((3, 1, 1), 7.0)], axis=-1)
    np.testing.assert_allclose(
        Hinge()(two, targets)[:2, 0], Hinge()(outputs, targets)[:2, 0], rtol=1e-5, atol=1e-6
    )


def test_hinge_stops_teaching_beyond_a_margin_of_one() -> None:
    logits = jnp.array([[[2.5, 1.0, 0.0]], [[1.5, 1.0, 0.0]]])
    gradient = jax.grad(lambda z: Hinge()(z, jnp.zeros((2, 1), int)).sum())(logits)
    np.testing.assert_array_equal(gradient[:, 0], [[0, 0, 0], [-1, 1, 0]])
