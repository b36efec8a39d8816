"""Sigmoid fits in log(step + 1): the planted parameters are recovered."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_jax.dynamics import fit_sigmoid
from mi_jax.training import log_spaced

STEPS = log_spaced(80).steps(20_000)


def _sigmoid(
    steps: np.ndarray, midpoint: float, width: float, low: float, high: float
) -> np.ndarray:
    return low + (high - low) / (1 + np.exp(-(np.log1p(steps) - np.log1p(midpoint)) / width))


@settings(deadline=None, max_examples=40)
@given(
    st.floats(30, 3000), st.floats(0.08, 0.6), st.floats(-5, 5), st.floats(0.1, 10), st.booleans()
)
def test_a_planted_sigmoid_is_found(
    midpoint: float, width: float, low: float, height: float, falling: bool
) -> None:
    first, last = (low + height, low) if falling else (low, low + height)
    fit = fit_sigmoid(STEPS, _sigmoid(STEPS, midpoint, width, first, last))
    np.testing.assert_allclose([fit.midpoint, fit.width], [midpoint, width], rtol=1e-3)
    np.testing.assert_allclose([fit.low, fit.high], [low, low + height], atol=2e-3 * height)
    assert fit.explained == pytest.approx(1, abs=1e-6)
    assert fit.rising is not falling


def test_a_falling_curve_is_the_mirror_image_of_a_rising_one() -> None:
    rise = _sigmoid(STEPS, 400, 0.2, 0, 1)
    up, down = fit_sigmoid(STEPS, rise), fit_sigmoid(STEPS, 1 - rise)
    assert (up.rising, down.rising) == (True, False)
    np.testing.assert_allclose(down[:5], up[:5], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize(
    ("midpoint", "seen"), [(5.0, False), (400.0, True), (15_000.0, False), (44_000.0, False)]
)
def test_a_fit_says_whether_the_curve_reached_both_plateaus(
    midpoint: float, seen: bool, noise: float, falling: bool
) -> None:
    """From 30 to 20,000 steps, a curve of width .6 lacks its beginning, nothing, or its end."""
    steps = STEPS[STEPS >= 30]
    curve = _sigmoid(steps, midpoint, 0.6, 0, 1)
    curve = curve + noise * np.random.default_rng(0).standard_normal(len(steps))
    assert fit_sigmoid(steps, 1 - curve if falling else curve).plateaus_seen is seen


def test_noise_moves_the_midpoint_by_its_standard_error_and_is_the_unexplained_share() -> None:
    curve, noise = _sigmoid(STEPS, 600, 0.3, 0, 1), 0.05
    fits = [
        fit_sigmoid(STEPS, curve + noise * np.random.default_rng(i).standard_normal(len(STEPS)))
        for i in range(20)
    ]
    middles = np.log1p([fit.midpoint for fit in fits])
    # By the curve's derivatives: the smallest standard error that the midpoint can have, which it
    # would have in x if the other three parameters were known.
    slopes = np.gradient(curve, np.log1p(STEPS))
    least = noise / np.sqrt((slopes**2).sum())
    assert 0.6 * least < np.std(middles) < 2 * least
    assert abs(np.mean(middles) - np.log1p(600)) < 2 * least
    assert np.mean([fit.explained for fit in fits]) == pytest.approx(
        1 - noise**2 / (curve.var() + noise**2), abs=0.005
    )


def test_a_jump_from_one_snapshot_to_the_next_has_its_midpoint_between_them() -> None:
    fit = fit_sigmoid(STEPS, (np.arange(len(STEPS)) > 50).astype(float))
    assert STEPS[50] <= fit.midpoint <= STEPS[51]
    assert (fit.low, fit.high) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    assert fit.width < 0.1


def test_values_that_are_not_finite_are_left_out() -> None:
    curve = _sigmoid(STEPS, 400, 0.2, 1, 3)
    curve[[2, 30, 41, 70]] = [np.nan, np.inf, np.nan, -np.inf]
    assert fit_sigmoid(STEPS, curve).midpoint == pytest.approx(400, rel=1e-3)


@pytest.mark.parametrize(
    "values",
    [[0.5] * 80, [np.nan] * 80, [0.0, 0.1, 0.9, 1.0] + [np.nan] * 76],
    ids=["constant", "nothing", "four"],
)
def test_curves_without_a_sigmoid_fit_are_nan(values: Any) -> None:
    fit = fit_sigmoid(STEPS, np.array(values))
    assert np.isnan(fit[:5]).all()
    assert (fit.rising, fit.plateaus_seen) == (False, False)
