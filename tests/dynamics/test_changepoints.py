"""Change points and transitions: planted ones are found within a snapshot, others are not."""

import math

import numpy as np
import pytest

from mi_jax.dynamics import null_penalty, segment
from mi_jax.dynamics.changepoints import log_grid
from mi_jax.training import log_spaced

STEPS = log_spaced(64).steps(16_000)
X = np.log1p(STEPS)


def _rise(
    first: int, last: int, low: float = 0.0, high: float = 1.0, noise: float = 0.0
) -> np.ndarray:
    """A curve that is level to snapshot ``first``, a line to snapshot ``last``, and level again."""
    curve = np.interp(X, [X[0], X[first], X[last], X[-1]], [low, low, high, high])
    return curve + noise * np.random.default_rng(first).standard_normal(len(X))


def _snapshot(step: float) -> float:
    """Index of the snapshot at a step, interpolated."""
    return float(np.interp(math.log1p(step), X, np.arange(len(X))))


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize(("first", "last"), [(32, 40), (42, 46), (32, 33), (50, 54)])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 0.0), (-3.0, 40.0)])
def test_a_planted_rise_is_one_transition_found_within_a_snapshot(
    first: int, last: int, low: float, high: float, noise: float
) -> None:
    found = segment(STEPS, _rise(first, last, low, high, noise * abs(high - low)))
    (rise,) = found.transitions
    assert found.change_points == (rise.begin, rise.end)
    assert (_snapshot(rise.begin), _snapshot(rise.end)) == (
        pytest.approx(first, abs=1),
        pytest.approx(last, abs=1),
    )
    assert rise.change == pytest.approx(high - low, rel=0.05)


def test_a_planted_rise_and_a_fall_are_two_transitions() -> None:
    found = segment(STEPS, _rise(25, 29) - _rise(45, 49))
    assert [
        (round(_snapshot(rise.begin)), round(_snapshot(rise.end))) for rise in found.transitions
    ] == [
        (25, 29),
        (45, 49),
    ]
    np.testing.assert_allclose([rise.change for rise in found.transitions], [1, -1], rtol=0.05)


def test_a_rise_longer_than_a_factor_of_four_in_steps_is_no_transition() -> None:
    assert (STEPS[50] + 1) / (STEPS[40] + 1) < 4 < (STEPS[51] + 1) / (STEPS[40] + 1)
    assert len(segment(STEPS, _rise(40, 50)).transitions) == 1
    found = segment(STEPS, _rise(40, 51))
    assert len(found.change_points) == 2
    assert found.transitions == ()


@pytest.mark.parametrize(("slope", "transitions"), [(2.5, 1), (1.6, 0)])
def test_a_transition_is_twice_as_steep_as_its_neighbours(slope: float, transitions: int) -> None:
    curve = X + (slope - 1) * np.clip(X - X[40], 0, X[47] - X[40])
    found = segment(STEPS, curve)
    assert len(found.change_points) == 2
    assert len(found.transitions) == transitions


def test_a_curve_with_one_bend_has_a_change_point_and_no_transition() -> None:
    for bend in (np.maximum(X - X[40], 0), np.minimum(X, X[40])):
        found = segment(STEPS, bend)
        assert [round(_snapshot(step)) for step in found.change_points] == [40]
        assert found.transitions == ()


def test_scale_offset_and_sign_change_no_date() -> None:
    curve = _rise(30, 35, noise=0.02)
    plain = segment(STEPS, curve)
    for factor in (-1.0, 1e-6, 1e6):
        found = segment(STEPS, factor * curve + 3 * factor)
        assert found.change_points == plain.change_points
        assert found.transitions[0].change == pytest.approx(
            factor * plain.transitions[0].change, rel=1e-6
        )


def test_values_that_are_not_finite_are_left_out() -> None:
    curve = _rise(32, 40)
    curve[[3, 20, 35, 36, 60]] = np.nan
    curve[10] = np.inf
    (rise,) = segment(STEPS, curve).transitions
    assert (_snapshot(rise.begin), _snapshot(rise.end)) == (
        pytest.approx(32, abs=1),
        pytest.approx(40, abs=1),
    )


@pytest.mark.parametrize(
    "missing",
    [slice(None, 32), slice(1, None, 2), slice(40, None)],
    ids=["first half", "every other", "end"],
)
def test_the_penalty_is_simulated_at_the_steps_at_which_the_curve_is_finite(missing: slice) -> None:
    """A simulation at all steps gave such curves up to nine times the nominal false alarms."""
    curve = _walk(np.random.default_rng(0), by_snapshot=True)
    curve[missing] = np.nan
    finite = np.isfinite(curve)
    found = segment(STEPS, curve)
    assert found.penalty == null_penalty(tuple(STEPS[finite].tolist()), 128, 0.01)
    assert found == segment(STEPS[finite], curve[finite])


@pytest.mark.parametrize("value", [0.0, 0.3, -1e9])
def test_nothing_is_found_in_a_constant(value: float) -> None:
    found = segment(STEPS, np.full(len(STEPS), value))
    assert (found.change_points, found.transitions) == ((), ())


def test_nothing_is_found_in_a_line() -> None:
    found = segment(STEPS, 3 * X + 1)
    assert (found.change_points, found.transitions) == ((), ())


@pytest.mark.parametrize("finite", [0, 1, 7])
def test_nothing_is_found_in_fewer_than_eight_values(finite: int) -> None:
    curve = np.where(np.arange(len(STEPS)) < finite, _rise(2, 4), np.nan)
    assert segment(STEPS, curve)[:2] == ((), ())


@pytest.mark.parametrize("count", [1, 7])
def test_nothing_is_found_in_a_run_of_fewer_than_eight_snapshots(count: int) -> None:
    assert segment(np.arange(count), np.linspace(0, 1, count))[:2] == ((), ())


def test_the_grid_is_even_in_log_step_and_linear_between_snapshots() -> None:
    steps, values = np.array([0, 9, 30, 99]), np.array([0.0, 0.5, np.nan, 1.5])
    grid, curve = log_grid(steps, values, 9)
    np.testing.assert_allclose(grid, np.linspace(0, 2, 9) * np.log(10))
    np.testing.assert_allclose(curve, [0, 0.125, 0.25, 0.375, 0.5, 0.75, 1, 1.25, 1.5])


def test_a_stricter_alpha_has_a_larger_penalty_and_penalties_are_reproducible() -> None:
    steps = tuple(range(0, 400, 20))
    strict, mild = (null_penalty(steps, 40, alpha, 200) for alpha in (0.01, 0.2))
    assert strict > mild > 0
    null_penalty.cache_clear()
    assert null_penalty(steps, 40, 0.01, 200) == strict


def _walk(rng: np.random.Generator, by_snapshot: bool) -> np.ndarray:
    """A random walk with equal moves between snapshots, or with variance log(step + 1)."""
    scale = np.ones(len(X) - 1) if by_snapshot else np.sqrt(np.diff(X))
    return np.concatenate([[0.0], np.cumsum(scale * rng.standard_normal(len(scale)))])


def _walk_by_step(rng: np.random.Generator, rough: bool) -> np.ndarray:
    """A random walk with a normal or heavy-tailed move at every training step."""
    moves = rng.standard_t(3, size=int(STEPS[-1])) if rough else rng.standard_normal(int(STEPS[-1]))
    return np.concatenate([[0.0], np.cumsum(moves)])[STEPS]


def _power_law(rng: np.random.Generator, logarithm: bool) -> np.ndarray:
    """a (1 + step / s)^-b + c, or its logarithm, with noise of 0.1 to 10 % of its range."""
    curve = rng.uniform(1, 5) * (1 + STEPS / rng.uniform(1, 1000)) ** -rng.uniform(
        0.1, 2
    ) + rng.uniform(0.001, 0.1)
    curve = np.log(curve) if logarithm else curve
    return curve + rng.choice([0.001, 0.01, 0.1]) * np.ptp(curve) * rng.standard_normal(len(curve))


@pytest.mark.slow
def test_at_a_nominal_percent_at_most_three_of_a_hundred_null_curves_have_a_transition() -> None:
    rng = np.random.default_rng(0)
    shares = {
        name: np.mean(
            [
                len(segment(STEPS, curve(rng, i % 2 == 0), alpha=0.01).transitions) > 0
                for i in range(100)
            ]
        )
        for name, curve in (
            ("walks by snapshot", _walk),
            ("walks by step", _walk_by_step),
            ("power laws", _power_law),
        )
    }
    message = ", ".join(f"{share:.1%} of 100 {name}" for name, share in shares.items())
    print(f"transitions claimed at a nominal 1 %: {message}")
    assert max(shares.values()) <= 0.03, message


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_change_points_are_claimed_in_the_nominal_share_of_random_walks(alpha: float) -> None:
    rng, draws = np.random.default_rng(1), 1000
    for by_snapshot in (True, False):
        share = np.mean(
            [
                len(segment(STEPS, _walk(rng, by_snapshot), alpha=alpha).change_points) > 0
                for _ in range(draws)
            ]
        )
        print(
            f"change points claimed at a nominal {alpha:.0%} in {share:.1%} of {draws} random walks"
        )
        # Three standard deviations of the share and of the penalty, a quantile of as many draws.
        assert share <= alpha + 3 * np.sqrt(2 * alpha * (1 - alpha) / draws), (
            f"{share:.1%} of walks, nominal {alpha:.0%}"
        )
