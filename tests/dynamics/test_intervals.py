"""Intervals over seeds: order statistics with their exact coverage, for numbers and for dates."""

from itertools import product

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom

from mi_jax.dynamics import date_differences, date_interval, interval

NAN, INF = float("nan"), float("inf")


def _dates(*rows: tuple[float, float]) -> xr.DataArray:
    bounds = np.array(rows, np.float64).reshape(-1, 2)
    return xr.DataArray(
        bounds, {"seed": np.arange(len(rows)), "bound": ["lower", "upper"]}, ("seed", "bound")
    )


@pytest.mark.parametrize(
    ("values", "coverage", "label"),
    [
        ([4.0, 1.0], 0.5, "range, 50 %"),
        ([2.0, 9.0, 4.0], 0.75, "range, 75 %"),
        ([8.0, 1.0, 2.0, 3.0], 0.875, "range, 87.5 %"),
        ([8.0, 1.0, 2.0, 3.0, 7.0], 0.9375, "range, 93.8 %"),
    ],
)
def test_two_to_five_seeds_have_their_range_with_its_coverage(
    values: list[float], coverage: float, label: str
) -> None:
    over = interval(np.array(values))
    assert over == (
        min(values),
        np.median(values),
        max(values),
        coverage,
        "range",
        len(values),
        len(values),
    )
    assert over.label == label


def test_one_seed_has_a_value_and_no_interval() -> None:
    over = interval(np.array([NAN, 5.0]))
    np.testing.assert_array_equal(over[:4], [NAN, 5.0, NAN, NAN])
    assert over[4:] == ("none", 1, 2)
    assert over.label == "no interval"


@pytest.mark.parametrize("n", range(6, 41))
def test_six_or_more_seeds_have_the_narrowest_symmetric_order_statistics_that_cover_95_percent(
    n: int,
) -> None:
    """[x_(k), x_(n+1-k)] misses the median with probability 2 P(Binomial(n, 1/2) <= k - 1)."""
    values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    over = interval(values)
    k = int(over.low)
    assert over.high == n + 1 - k
    assert over.middle == (n + 1) / 2
    assert over.coverage == pytest.approx(1 - 2 * binom.cdf(k - 1, n, 0.5), rel=1e-12)
    assert over.coverage >= 0.95 > 1 - 2 * binom.cdf(k, n, 0.5)
    assert over.kind == "order statistics"


def test_seven_and_fifteen_seeds_have_the_published_order_statistics() -> None:
    assert interval(np.arange(1.0, 8.0))[:4] == (1, 4, 7, 1 - 2 / 2**7)
    fifteen = interval(np.arange(1.0, 16.0))
    assert (fifteen.low, fifteen.high, round(fifteen.coverage, 3)) == (4, 12, 0.965)
    assert fifteen.label == "96.5 %"


def test_numbers_that_are_not_finite_are_left_out_and_counted() -> None:
    over = interval(np.array([NAN, 5.0, INF, 1.0, 2.0]))
    assert over == (1.0, 2.0, 5.0, 0.75, "range", 3, 5)


@pytest.mark.parametrize("total", [0, 1, 3, 8])
def test_without_any_value_there_is_no_interval(total: int) -> None:
    over = interval(np.full(total, NAN))
    assert np.isnan(over[:4]).all()
    assert over[4:] == ("none", 0, total)


def test_the_order_of_the_seeds_does_not_matter() -> None:
    values = np.array([9.0, 1.0, 4.0, 7.0, 2.0, 5.0, 3.0])
    assert interval(values) == interval(np.sort(values))


def test_the_median_of_dates_lies_between_the_median_bounds() -> None:
    over = date_interval(_dates((1, 4), (2, 3), (7, 9)))
    assert over.middle == (2, 4)
    assert (over.low, over.high) == (1, 9)
    assert (over.coverage, over.kind, over.found, over.total) == (0.75, "range", 3, 3)


def test_an_even_number_of_dates_has_the_mean_of_the_two_in_the_middle() -> None:
    assert date_interval(_dates((1, 4), (2, 3), (7, 9), (5, 8))).middle == (3.5, 6)


def test_seeds_that_never_get_there_stay_in() -> None:
    """Left out, the one seed that got there would make the median 905."""
    never = (6000.0, INF)
    over = date_interval(_dates((900, 910), never, never, never, never))
    assert over.middle == (6000, INF)
    assert (over.low, over.high, over.found, over.total) == (900, INF, 1, 5)
    six = date_interval(_dates((1, 2), (2, 3), (3, 4), (4, 5), (5, 6), never))
    assert (six.low, six.middle, six.high) == (1, (3.5, 4.5), INF)


def test_seeds_that_were_there_from_the_first_snapshot_stay_in() -> None:
    over = date_interval(_dates((-INF, 10), (-INF, 10), (20, 30)))
    assert (over.low, over.middle, over.high) == (-INF, (-INF, 10), 30)


def test_seeds_without_the_event_are_left_out_and_counted() -> None:
    over = date_interval(_dates((NAN, NAN), (1, 2), (3, 4)))
    assert (over.low, over.middle, over.high, over.found, over.total) == (1, (2, 3), 4, 2, 3)


def test_one_date_and_no_date_have_no_interval() -> None:
    alone = date_interval(_dates((3, 4)))
    assert alone.middle == (3, 4)
    assert np.isnan([alone.low, alone.high, alone.coverage]).all()
    assert alone.kind == "none"
    nothing = date_interval(_dates((NAN, NAN), (NAN, NAN)))
    assert np.isnan(nothing.middle).all()
    assert nothing[4:] == ("none", 0, 2)


def test_intervals_of_dates_contain_those_of_every_truth_between_the_bounds() -> None:
    rng = np.random.default_rng(0)
    bounds = np.sort(rng.integers(0, 50, (7, 2)).astype(float), axis=1)
    over = date_interval(_dates(*map(tuple, bounds)))
    for corner in product((0, 1), repeat=7):
        truth = interval(bounds[np.arange(7), corner])
        assert over.low <= truth.low
        assert over.high >= truth.high
        assert over.middle[0] <= truth.middle <= over.middle[1]
        assert over.coverage == truth.coverage


def test_differences_of_dates_are_taken_seed_by_seed() -> None:
    early, late = _dates((1, 2), (3, 4), (5, INF)), _dates((10, 12), (20, INF), (6, INF))
    apart = date_differences(early, late)
    np.testing.assert_array_equal(apart, [[8, 11], [16, INF], [-INF, INF]])
    assert apart.dims == ("seed", "bound")
    assert apart.attrs["units"] == "steps"
    np.testing.assert_array_equal(date_differences(early.isel(seed=[2, 0, 1]), late), apart)


def test_the_estimand_is_the_median_of_paired_differences() -> None:
    first = _dates(*((step, step) for step in (0.0, 10.0, 20.0)))
    second = _dates(*((step, step) for step in (5.0, 11.0, 90.0)))
    over = date_interval(date_differences(first, second))
    # The difference of the medians is 1.
    assert over.middle == (5, 5)


def test_differences_need_the_same_seeds() -> None:
    with pytest.raises(ValueError, match=r"seeds \[0, 1\] and \[0\]"):
        date_differences(_dates((1, 2), (3, 4)), _dates((1, 2)))
