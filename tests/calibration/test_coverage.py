"""Coverage of intervals of medians and of dates, by simulation with a known truth.

Intervals of numbers, and of dates whose every bound is known, cover the true median as often as
their label says. Dates that are known between snapshots, or not at all, are covered at least as
often.
"""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from recording import record

from mi_jax.dynamics import date_differences, date_interval, interval

DRAWS = 4000
DISTRIBUTIONS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "normal": (lambda rng, n: rng.standard_normal(n), 0.0),
    "lognormal": (lambda rng, n: rng.lognormal(size=n), 1.0),
    "exponential": (lambda rng, n: rng.exponential(size=n), float(np.log(2))),
}
"""How to draw n values, and the median of their distribution."""
SNAPSHOTS = np.concatenate([[0], np.unique(np.geomspace(10, 6000, 25).astype(int))]).astype(float)
MEDIAN_DATE = 1000.0


def _true_dates(rng: np.random.Generator, n: int, never: float) -> np.ndarray:
    """Dates whose median is ``MEDIAN_DATE`` where no seed never gets there.

    Args:
        rng: draws them.
        n: number of seeds.
        never: probability that a seed never gets there: its date is inf.
    """
    dates = MEDIAN_DATE * rng.lognormal(sigma=0.8, size=n)
    return np.where(rng.random(n) < never, np.inf, dates)


def _true_median(never: float) -> float:
    """The median of ``_true_dates``: the quantile .5 / (1 - never) of the dates that exist."""
    if never >= 0.5:
        return float("inf")
    # The quantile of a lognormal, by a large fixed sample: exact to .1 %.
    sample = MEDIAN_DATE * np.random.default_rng(0).lognormal(sigma=0.8, size=4_000_000)
    return float(np.quantile(sample, 0.5 / (1 - never)))


def _seen(dates: np.ndarray, snapshots: np.ndarray) -> xr.DataArray:
    """The bounds of dates that are known to the snapshots around them."""
    after = np.searchsorted(snapshots, dates, side="left")
    edges = np.concatenate([[-np.inf], snapshots, [np.inf]])
    return _as_dates(np.stack([edges[after], edges[after + 1]], axis=1))


def _as_dates(bounds: np.ndarray) -> xr.DataArray:
    return xr.DataArray(
        bounds, {"seed": np.arange(len(bounds)), "bound": ["lower", "upper"]}, ("seed", "bound")
    )


def _standard_error(share: float, draws: int) -> float:
    return float(np.sqrt(share * (1 - share) / draws))


def _check_numbers(name: str, n: int, draws: int) -> None:
    """Coverage within 3 standard errors of the label."""
    draw, truth = DISTRIBUTIONS[name]
    rng = np.random.default_rng(n)
    found = [interval(draw(rng, n)) for _ in range(draws)]
    covered = np.mean([over.low <= truth <= over.high for over in found])
    label = found[0].coverage
    if draws == DRAWS:
        record(
            "numbers", {"seeds": n, "label": label, "distribution": name, "covered": float(covered)}
        )
    assert abs(covered - label) <= 3 * _standard_error(label, draws)


CENSORING: dict[str, tuple[np.ndarray, float]] = {
    "exact": (np.array([]), 0.0),
    "between snapshots": (SNAPSHOTS, 0.0),
    "left": (SNAPSHOTS[SNAPSHOTS >= 700], 0.0),
    "right": (SNAPSHOTS[SNAPSHOTS <= 1300], 0.0),
    "a third never": (SNAPSHOTS, 1 / 3),
    "two thirds never": (SNAPSHOTS, 2 / 3),
}
"""The snapshots at which seeds are seen (none: dates are known exactly), and the share of never."""


def _check_dates(kind: str, n: int, draws: int) -> None:
    """Coverage of the interval not below its label by more than 3 standard errors.

    The bounds of the median enclose the sample's own median without exception.
    """
    snapshots, never = CENSORING[kind]
    rng, truth, covered = np.random.default_rng(n), _true_median(never), 0
    for _ in range(draws):
        dates = _true_dates(rng, n, never)
        exact = kind == "exact"
        seen = _as_dates(np.stack([dates, dates], axis=1)) if exact else _seen(dates, snapshots)
        over = date_interval(seen)
        covered += over.low <= truth <= over.high
        ordered = np.sort(dates)
        sample = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        assert over.middle[0] <= sample <= over.middle[1]
    label = over.coverage  # pyright: ignore[reportPossiblyUnboundVariable]
    share = covered / draws
    if draws == DRAWS:
        record("dates", {"seeds": n, "label": label, "kind": kind, "covered": share})
    assert share >= label - 3 * _standard_error(label, draws)
    if kind == "exact":
        assert share <= label + 3 * _standard_error(label, draws)


def _check_differences(n: int, draws: int) -> None:
    """Coverage of the median of paired differences of dates known between snapshots."""
    rng, covered = np.random.default_rng(n), 0
    for _ in range(draws):
        first = MEDIAN_DATE * rng.lognormal(sigma=0.8, size=n)
        second = first + 500 * rng.lognormal(sigma=0.5, size=n)
        over = date_interval(date_differences(_seen(first, SNAPSHOTS), _seen(second, SNAPSHOTS)))
        covered += over.low <= 500 <= over.high
    label = over.coverage  # pyright: ignore[reportPossiblyUnboundVariable]
    if draws == DRAWS:
        record("differences", {"seeds": n, "label": label, "covered": covered / draws})
    assert covered / draws >= label - 3 * _standard_error(label, draws)


@pytest.mark.parametrize("n", [2, 5, 7, 15])
def test_intervals_of_numbers_cover_what_they_say(n: int) -> None:
    _check_numbers("lognormal", n, 1000)


@pytest.mark.parametrize("kind", CENSORING)
@pytest.mark.parametrize("n", [3, 7])
def test_intervals_of_dates_cover_what_they_say(n: int, kind: str) -> None:
    _check_dates(kind, n, 300)


def test_intervals_of_differences_cover_what_they_say() -> None:
    _check_differences(7, 300)


@pytest.mark.long
@pytest.mark.parametrize("n", range(2, 21))
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_intervals_of_numbers_cover_what_they_say_for_2_to_20_seeds(name: str, n: int) -> None:
    _check_numbers(name, n, DRAWS)


@pytest.mark.long
@pytest.mark.parametrize("n", range(2, 21))
@pytest.mark.parametrize("kind", CENSORING)
def test_intervals_of_dates_cover_what_they_say_for_2_to_20_seeds(kind: str, n: int) -> None:
    _check_dates(kind, n, DRAWS)


@pytest.mark.long
@pytest.mark.parametrize("n", range(2, 21))
def test_intervals_of_differences_cover_what_they_say_for_2_to_20_seeds(n: int) -> None:
    _check_differences(n, DRAWS)
