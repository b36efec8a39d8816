"""Intervals over seeds: range, bootstrap, and the count of seeds without a value."""

import itertools
from math import comb

import numpy as np
import pytest
from scipy.stats import bootstrap

from mi_jax.dynamics import interval

NAN = float("nan")


@pytest.mark.parametrize("values", [[3.0], [4.0, 1.0], [2.0, 9.0, 4.0], [8.0, 1.0, 2.0, 3.0]])
def test_fewer_than_five_seeds_have_their_range(values: list[float]) -> None:
    found = interval(np.array(values))
    assert (found.low, found.middle, found.high, found.kind) == (
        min(values),
        np.median(values),
        max(values),
        "range",
    )
    assert (found.found, found.total) == (len(values), len(values))


def _binomial_tail(n: int, least: int, share: float) -> float:
    return sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(least, n + 1))


# For these n no tail lies within 4 standard errors (of 2000 draws) of 2.5 %, so that the random
# draws cannot change the result.
@pytest.mark.parametrize("n", [5, 7, 11])
def test_from_five_on_an_odd_number_has_the_exact_bootstrap_of_the_median(n: int) -> None:
    """A resample's median is at most the j-th of n values if at least (n + 1) / 2 draws are."""
    values = np.random.default_rng(n).permutation(np.arange(n) ** 2.0 + 10)
    ordered = np.sort(values)
    tails = np.array([_binomial_tail(n, (n + 1) // 2, j / n) for j in range(1, n + 1)])
    low, high = ordered[np.argmax(tails >= 0.025)], ordered[np.argmax(tails >= 0.975)]
    found = interval(values)
    assert (found.low, found.middle, found.high) == (low, np.median(values), high)
    assert (found.kind, found.found, found.total) == ("bootstrap 95 %", n, n)


def test_an_even_number_has_the_bootstrap_of_all_its_resamples() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    medians = np.median(np.array(list(itertools.product(values, repeat=6))), axis=1)
    found = interval(values)
    assert (found.low, found.high) == tuple(np.quantile(medians, [0.025, 0.975]))
    assert found.middle == 6


def test_many_seeds_agree_with_scipys_bootstrap() -> None:
    values = np.random.default_rng(0).lognormal(size=40)
    theirs = bootstrap(
        (values,), np.median, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    found = interval(values, draws=20_000)
    np.testing.assert_allclose([found.low, found.high], theirs, rtol=0.02)


def test_seeds_without_a_value_are_left_out_and_counted() -> None:
    found = interval(np.array([NAN, 5.0, NAN, 1.0, 2.0]))
    assert found == (1.0, 2.0, 5.0, "range", 3, 5)
    some = np.array([5.0, NAN, 1.0, 2.0, 8.0, NAN, 3.0])
    assert interval(some)[:4] == interval(some[np.isfinite(some)])[:4]
    assert (interval(some).kind, interval(some).found, interval(some).total) == (
        "bootstrap 95 %",
        5,
        7,
    )


def test_four_values_among_many_seeds_have_their_range() -> None:
    assert interval(np.array([NAN] * 6 + [1.0, 2.0, 3.0, 4.0])).kind == "range"


@pytest.mark.parametrize("total", [1, 3, 8])
def test_without_any_value_there_is_no_interval(total: int) -> None:
    found = interval(np.full(total, NAN))
    assert np.isnan(found[:3]).all()
    assert found[3:] == ("none", 0, total)


def test_the_interval_is_reproducible_and_independent_of_the_order_of_seeds() -> None:
    values = np.array([9.0, 1.0, 4.0, 7.0, 2.0, 5.0, 3.0])
    assert interval(values) == interval(values)
    assert interval(np.sort(values)) == interval(values)
