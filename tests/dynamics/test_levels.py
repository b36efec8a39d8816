"""Interpolated crossings of levels, checked by hand."""

import math
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mi_jax.dynamics import crossings, interpolated_crossing, interpolated_crossings

NAN = float("nan")


def _crossing(steps: list[int], values: list[float], level: float, direction: Any = "up") -> float:
    return interpolated_crossing(np.array(steps), np.array(values), level, direction)


def test_a_crossing_is_interpolated_in_the_logarithm_of_step_plus_one() -> None:
    # Between steps 9 and 99 (log10 of step + 1: 1 and 2) the curve rises from .2 to .7: .45 is
    # half-way, at 10^1.5 - 1.
    assert _crossing([0, 9, 99, 999], [0.0, 0.2, 0.7, 1.0], 0.45) == pytest.approx(
        10**1.5 - 1, rel=1e-12
    )
    # A fifth of the way from 0.7 to 1.0 between 99 and 999.
    assert _crossing([0, 9, 99, 999], [0.0, 0.2, 0.7, 1.0], 0.76) == pytest.approx(
        10**2.2 - 1, rel=1e-12
    )
    # From step 0, where log(step + 1) is 0.
    assert _crossing([0, 9], [0.0, 1.0], 0.25) == pytest.approx(10**0.25 - 1, rel=1e-12)


def test_a_falling_curve_crosses_downwards() -> None:
    assert _crossing([0, 9, 99], [3.0, 2.0, 0.0], 1.0, "down") == pytest.approx(
        10**1.5 - 1, rel=1e-12
    )
    assert _crossing([0, 9, 99], [3.0, 2.0, 0.0], 1.0, "up") == 0.0
    assert math.isnan(_crossing([0, 9, 99], [3.0, 2.0, 1.5], 1.0, "down"))


def test_a_curve_that_reaches_a_level_exactly_at_a_step_crosses_there() -> None:
    for direction, values in (("up", [0.0, 0.5, 1.0]), ("down", [1.0, 0.5, 0.0])):
        assert _crossing([0, 7, 30], values, 0.5, direction) == pytest.approx(7.0, rel=1e-12)


def test_a_curve_that_starts_at_the_level_crosses_at_the_first_step() -> None:
    assert _crossing([0, 5], [0.99, 1.0], 0.99) == 0.0
    assert _crossing([3, 5], [1.0, 0.0], 0.5) == pytest.approx(3.0)


def test_only_the_first_of_several_crossings_counts() -> None:
    steps, values = [0, 1, 3, 7, 15], [0.0, 0.6, 0.2, 0.9, 0.9]
    assert _crossing(steps, values, 0.5) == pytest.approx(2 ** (5 / 6) - 1, rel=1e-12)


def test_a_curve_that_never_reaches_the_level_has_no_date() -> None:
    assert math.isnan(_crossing([0, 1, 2], [0.0, 0.5, 0.98], 0.99))
    assert math.isnan(_crossing([0, 1, 2], [NAN, NAN, NAN], 0.99))
    assert math.isnan(_crossing([], [], 0.99))


def test_a_jump_from_one_step_to_the_next_is_dated_between_them() -> None:
    date = _crossing([100, 101], [0.0, 1.0], 0.99)
    assert 100.9 < date < 101


def test_non_finite_values_are_no_crossing_and_are_skipped() -> None:
    steps = [0, 9, 30, 99]
    assert _crossing(steps, [0.0, 0.2, NAN, 0.7], 0.45) == pytest.approx(10**1.5 - 1, rel=1e-12)
    assert _crossing(steps, [0.0, 0.2, float("inf"), 0.7], 0.45) == pytest.approx(
        10**1.5 - 1, rel=1e-12
    )
    assert _crossing([0, 9, 99], [NAN, 0.5, 1.0], 0.5) == pytest.approx(9.0)
    assert math.isnan(_crossing([0, 1, 2], [0.0, 0.5, float("-inf")], 0.99))


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.floats(-1, 1)),
        min_size=1,
        max_size=20,
        unique_by=lambda pair: pair[0],
    ),
    st.floats(-1, 1),
)
def test_a_date_lies_between_the_snapshots_around_the_crossing(
    points: list[tuple[int, float]], level: float
) -> None:
    points.sort()
    steps, values = [step for step, _ in points], [value for _, value in points]
    date = _crossing(steps, values, level)
    first = next((i for i, value in enumerate(values) if value >= level), None)
    if first is None:
        assert math.isnan(date)
    else:
        assert (
            steps[max(first - 1, 0)] * (1 - 1e-9) - 1e-9 <= date <= steps[first] * (1 + 1e-9) + 1e-9
        )


@given(st.integers(2, 50), st.floats(0.01, 0.99))
def test_a_curve_that_is_a_line_in_log_step_is_dated_exactly_however_it_is_sampled(
    count: int, level: float
) -> None:
    steps = np.unique(np.random.default_rng(count).integers(0, 10**5, count))
    steps = np.unique([0, *steps, 10**5])
    values = np.log1p(steps) / np.log1p(10**5)
    assert interpolated_crossing(steps, values, level) == pytest.approx(
        (10**5 + 1) ** level - 1, rel=1e-6
    )


def test_falling_and_rising_are_mirror_images() -> None:
    steps, values = [0, 4, 20, 90], [0.1, 0.3, 0.8, 0.9]
    assert _crossing(steps, [-v for v in values], -0.6, "down") == _crossing(
        steps, values, 0.6, "up"
    )


STEPS = [0, 9, 99, 999]


def _dataset(**curves: list[list[float]]) -> xr.Dataset:
    seeds = list(range(5, 5 + len(next(iter(curves.values())))))
    variables = {name: (("seed", "step"), np.array(rows)) for name, rows in curves.items()}
    return xr.Dataset(variables, {"seed": seeds, "step": STEPS})


ACCURACIES = _dataset(
    train_accuracy=[[0.0, 1.0, 1.0, 1.0], [0.0, 0.98, 1.0, 1.0], [0.0, 0.5, 0.6, 0.7]],
    test_accuracy=[[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.5, 0.98], [0.0, 0.0, 0.0, 0.1]],
)


def test_the_order_of_the_dims_does_not_matter() -> None:
    curve = ACCURACIES["train_accuracy"]
    for level_of in (interpolated_crossings, crossings):
        ours, theirs = level_of(curve, 0.99), level_of(curve.transpose("step", "seed"), 0.99)
        xr.testing.assert_identical(ours, theirs)


def test_an_interpolated_crossing_lies_between_the_two_snapshots_of_the_date() -> None:
    curve = ACCURACIES["train_accuracy"]
    found, dates = interpolated_crossings(curve, 0.99).values, crossings(curve, 0.99).values
    np.testing.assert_allclose(found, [10**0.99 - 1, 10**1.5 - 1, NAN])
    assert dates.tolist() == [[0, 9], [9, 99], [999, math.inf]]
    assert ((found[:2] > dates[:2, 0]) & (found[:2] <= dates[:2, 1])).all()


def test_crossings_are_in_steps_by_seed() -> None:
    dates = interpolated_crossings(ACCURACIES["train_accuracy"], 0.5)
    assert dates.attrs["units"] == "steps"
    np.testing.assert_allclose(dates, [10**0.5 - 1, 10 ** (0.5 / 0.98) - 1, 9.0])
