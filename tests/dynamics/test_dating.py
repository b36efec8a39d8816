"""Dates between two snapshots: crossings, the phases of grokking, and verdicts."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_jax.dynamics import (
    LIU_2022,
    VERDICTS,
    GrokkingRule,
    crossings,
    first_crossing,
    grokking_dates,
    retrospective_phases,
)

NAN, INF = float("nan"), float("inf")
DATED = ("memorised", "circuit_formation_end", "cleanup_end", "generalised")
STEPS = [0, 10, 20, 50, 100, 200, 500, 1000]
LEARNS = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
GROKS = [0.0, 0.0, 0.0, 0.0, 0.1, 0.6, 1.0, 1.0]
LOSSES = [9.0, 3.0, 4.0, 5.0, 4.8, 2.0, 0.1, 0.01]


def _crossing(
    steps: list[int], values: list[float], level: float, direction: Any = "up"
) -> tuple[float, float]:
    return first_crossing(np.array(steps), np.array(values), level, direction)


def _dataset(*rows: tuple[list[float], ...], steps: list[int] = STEPS) -> xr.Dataset:
    """One row per seed: training accuracy, test accuracy, test loss."""
    names = ("train_accuracy", "test_accuracy", "test_loss")
    curves = dict(zip(names, (np.array(curve) for curve in zip(*rows, strict=True)), strict=True))
    return xr.Dataset(
        {name: (("seed", "step"), values) for name, values in curves.items()},
        {"seed": list(range(4, 4 + len(rows))), "step": steps},
    )


def _pair(dates: xr.Dataset, name: str, row: int = 0) -> list[float]:
    return dates[name].values[row].tolist()


def test_a_crossing_is_dated_by_the_two_snapshots_around_it() -> None:
    assert _crossing([0, 9, 99], [0.0, 0.2, 0.7], 0.45) == (9, 99)
    assert _crossing([0, 9, 99], [3.0, 2.0, 0.0], 1.0, "down") == (9, 99)
    assert _crossing([0, 1, 3, 7], [0.0, 0.6, 0.2, 0.9], 0.5) == (0, 1)


def test_a_level_that_is_met_exactly_at_a_snapshot_is_reached_there() -> None:
    """Interpolated dates of such levels were off by rounding, early or late."""
    steps = np.unique(np.geomspace(1, 10_000, 300).astype(int))
    values = np.log1p(steps) / np.log1p(10_000)
    for i in range(1, len(steps)):
        assert first_crossing(steps, values, float(values[i])) == (steps[i - 1], steps[i])


def test_what_had_happened_by_the_first_snapshot_or_not_by_the_last_is_open_there() -> None:
    assert _crossing([30, 50], [0.99, 1.0], 0.99) == (-INF, 30)
    assert _crossing([0, 1, 2], [0.0, 0.5, 0.98], 0.99) == (2, INF)
    assert _crossing([], [], 0.99) == (-INF, INF)


def test_values_that_are_not_finite_say_nothing() -> None:
    assert _crossing([0, 9, 30, 99], [0.0, 0.2, NAN, 0.7], 0.45) == (9, 99)
    assert _crossing([0, 9, 30, 99], [0.0, 0.2, INF, 0.7], 0.45) == (9, 99)
    assert _crossing([0, 9, 30], [NAN, 0.5, 1.0], 0.5) == (-INF, 9)
    assert _crossing([0, 9, 30], [0.0, 0.5, NAN], 0.9) == (9, INF)


def test_crossings_are_dates_by_seed_with_their_bounds() -> None:
    dates = crossings(_dataset((LEARNS, GROKS, LOSSES))["train_accuracy"], 0.5)
    assert dates.dims == ("seed", "bound")
    assert dates["bound"].values.tolist() == ["lower", "upper"]
    assert dates["seed"].values.tolist() == [4]
    assert dates.attrs["units"] == "steps"
    assert dates.values.tolist() == [[0, 10]]


def test_the_phases_of_planted_curves() -> None:
    """The loss before memorising, 9, is no part of the rule; 4.8 is .96 of 5."""
    dates = grokking_dates(_dataset((LEARNS, GROKS, LOSSES)))
    assert _pair(dates, "memorised") == [10, 20]
    assert _pair(dates, "circuit_formation_end") == [100, 200]
    assert _pair(dates, "cleanup_end") == _pair(dates, "generalised") == [200, 500]
    assert dates["verdict"].values.tolist() == ["grokked"]
    assert dates.attrs == {"level": 0.99, "gap": 2.0, "gap_unit": "ratio"}


def test_a_seed_that_has_not_generalised_has_open_dates_and_none_at_the_budget() -> None:
    dates = grokking_dates(_dataset((LEARNS, [0.0] * 8, LOSSES), ([0.0] * 8, [0.0] * 8, LOSSES)))
    assert _pair(dates, "circuit_formation_end") == [100, INF]
    assert _pair(dates, "cleanup_end") == _pair(dates, "generalised") == [1000, INF]
    assert _pair(dates, "circuit_formation_end", 1) == _pair(dates, "memorised", 1) == [1000, INF]
    assert dates["verdict"].values.tolist() == ["did not grok", "did not memorise"]


def test_a_seed_without_a_snapshot_in_between_has_no_phases() -> None:
    dates = grokking_dates(_dataset((LEARNS, LEARNS, LOSSES), ([0.5] * 8, LEARNS, LOSSES)))
    for name in ("circuit_formation_end", "cleanup_end"):
        assert np.isnan(dates[name]).all()
    assert dates["verdict"].values.tolist() == [
        "generalised at once",
        "generalised without memorising",
    ]


def test_without_test_loss_there_are_no_phases_to_date() -> None:
    dates = grokking_dates(_dataset((LEARNS, GROKS, LOSSES)).drop_vars("test_loss"))
    assert set(dates) == {"memorised", "generalised", "verdict"}


def test_losses_that_are_not_finite_are_no_largest() -> None:
    losses = LOSSES.copy()
    losses[3], losses[5] = INF, NAN
    dates = grokking_dates(_dataset((LEARNS, GROKS, losses), (LEARNS, GROKS, [NAN] * 8)))
    assert _pair(dates, "circuit_formation_end") == [100, 500]
    assert np.isnan(dates["circuit_formation_end"][1]).all()


def test_a_loss_that_was_largest_before_training_dates_a_circuit_all_the_same() -> None:
    """The verdict "grokked" had no phases where the untrained loss was the largest, 6 to 5."""
    falls = [6.0, 5.0, 5.0, 5.0, 5.0, 2.0, 0.1, 0.01]
    assert _pair(grokking_dates(_dataset((LEARNS, GROKS, falls))), "circuit_formation_end") == [
        100,
        200,
    ]


@pytest.mark.parametrize(
    ("rule", "generalises", "verdict"),
    [
        (GrokkingRule(), 3, "generalised at once"),
        (GrokkingRule(), 4, "grokked"),
        (GrokkingRule(gap=2.5), 4, "grokked"),
        (GrokkingRule(gap=2.6), 4, "generalised at once"),
        (GrokkingRule(gap=480, unit="steps"), 7, "grokked"),
        (GrokkingRule(gap=481, unit="steps"), 7, "generalised at once"),
        (LIU_2022, 7, "generalised at once"),
    ],
)
def test_grokked_is_certain_whatever_happened_between_snapshots(
    rule: GrokkingRule, generalises: int, verdict: str
) -> None:
    """Memorised by 20; the lower bound of generalising is the snapshot before the one given."""
    test = [0.0] * generalises + [1.0] * (8 - generalises)
    dates = grokking_dates(_dataset((LEARNS, test, LOSSES)), rule)
    assert dates["verdict"].values.tolist() == [verdict]


def test_a_diverged_seed_is_told_from_one_that_learned_nothing() -> None:
    broken = [*LOSSES[:4], NAN, NAN, NAN, NAN]
    nothing = [0.0] * 8
    dates = grokking_dates(
        _dataset((nothing, nothing, broken), (LEARNS, nothing, broken), (LEARNS, GROKS, broken))
    )
    assert dates["verdict"].values.tolist() == ["diverged", "diverged", "grokked"]


def test_a_history_that_begins_late_leaves_open_what_lies_before_it() -> None:
    late = [step + 1000 for step in STEPS]
    trained = [1.0] * 8
    dates = grokking_dates(
        _dataset((trained, GROKS, LOSSES), (trained, trained, LOSSES), steps=late)
    )
    assert _pair(dates, "memorised") == [-INF, 1000]
    assert _pair(dates, "circuit_formation_end") == [-INF, 1010]
    assert _pair(dates, "generalised", 1) == [-INF, 1000]
    assert dates["verdict"].values.tolist() == ["undecided", "undecided"]
    # From step 3,000 on it is certain all the same.
    far = [1000, *(step + 3000 for step in STEPS[1:])]
    assert grokking_dates(_dataset((trained, GROKS, LOSSES), steps=far))["verdict"] == "grokked"


def test_a_late_history_that_dips_at_its_first_snapshot_is_open_below() -> None:
    """Cut at each snapshot, a history never gives a date that excludes the one of the whole."""
    dips = [0.0, 0.2, 1.0, 1.0, 0.9, 0.6, 1.0, 1.0]
    falls = [0.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    whole = _dataset((LEARNS, dips, LOSSES), (falls, falls, LOSSES))
    truth = grokking_dates(whole)
    for first in range(1, 8):
        cut = grokking_dates(whole.isel(step=slice(first, None)))
        for seed in range(2):
            for name in ("memorised", "generalised"):
                low, high = _pair(truth, name, seed)
                cut_low, cut_high = _pair(cut, name, seed)
                assert cut_low <= low
                assert high <= cut_high
            known = {"undecided", truth["verdict"].values[seed]}
            assert cut["verdict"].values[seed] in known
    low = grokking_dates(_dataset((LEARNS, GROKS, LOSSES), steps=[x + 5 for x in STEPS]))
    assert _pair(low, "generalised")[0] > 0


_ACCURACIES = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=8, max_size=8)
_LOSSES = st.lists(st.sampled_from([0.1, 1.0, 4.8, 5.0, 9.0, NAN]), min_size=8, max_size=8)


@settings(deadline=None, max_examples=150)
@given(_ACCURACIES, _ACCURACIES, _LOSSES, st.booleans())
def test_no_date_leaves_its_bounds_when_training_goes_further(
    train: list[float], test: list[float], losses: list[float], late: bool
) -> None:
    """For every budget: dates that have happened stay, open ones narrow, and all are in order."""
    steps = [step + 1000 * late for step in STEPS]
    whole = _dataset((train, test, losses), steps=steps)
    budgets = [grokking_dates(whole.isel(step=slice(None, end))) for end in range(1, 9)]
    for shorter, longer in pairwise(budgets):
        for name in DATED:
            (low, high), (new_low, new_high) = _pair(shorter, name), _pair(longer, name)
            if math.isinf(high):
                assert math.isnan(new_low) or low <= new_low < new_high
            else:
                np.testing.assert_array_equal([low, high], [new_low, new_high])
        if shorter["verdict"].item() not in ("did not grok", "did not memorise", "diverged"):
            settled = shorter["verdict"].item() == "grokked"
            assert not settled or longer["verdict"].item() == "grokked"
        assert longer["verdict"].item() in VERDICTS
        formed = _pair(longer, "circuit_formation_end")
        if not math.isnan(formed[0]):
            for bound in (0, 1):
                assert formed[bound] <= _pair(longer, "cleanup_end")[bound]
            memorised = _pair(longer, "memorised")
            may_lie_before = late and memorised[0] == -INF
            assert may_lie_before or memorised[1] <= max(formed[1], formed[0])


def test_clean_up_does_not_move_with_the_budget_where_a_share_of_the_fall_does() -> None:
    """A squared loss that goes on falling as a power law after it has generalised."""
    steps = np.unique(np.geomspace(1, 6000, 120).astype(int))
    late = np.clip(steps / 1500.0, 1, None)
    curves = {
        "train_accuracy": (steps > 50).astype(float),
        "test_accuracy": (steps > 2000).astype(float),
        "test_loss": late**-6.0,
    }
    dataset = xr.Dataset(
        {name: (("seed", "step"), row[None]) for name, row in curves.items()},
        {"seed": [0], "step": steps},
    )
    cut = [dataset.sel(step=slice(None, budget)) for budget in (2400, 4000, 6000)]
    # Nine tenths of the fall of log loss so far: later for every larger budget.
    logs = [np.log(part["test_loss"].values[0]) for part in cut]
    shares = [
        first_crossing(part["step"].values, y, y[0] + 0.9 * (y[-1] - y[0]), "down")
        for part, y in zip(cut, logs, strict=True)
    ]
    assert shares[0] < shares[1] < shares[2]
    new = [grokking_dates(part) for part in cut]
    for name in DATED:
        assert _pair(new[0], name) == _pair(new[1], name) == _pair(new[2], name)
    # The rules that need the end say that it is not decided.
    for part in cut:
        ends = retrospective_phases(part)
        assert not ends["decided"].any()
        assert np.isinf(ends["cleanup_end"].sel(bound="upper")).all()


def test_retrospective_phases_of_a_settled_curve_are_decided() -> None:
    """Log test loss falls from 0 to -10 and is settled for more than the last doubling."""
    dataset = _dataset(
        (LEARNS, GROKS, [0.1, 0.5, 1.0, 1.0, math.exp(-0.5), math.exp(-9.5), *[math.exp(-10)] * 2])
    )
    dataset["excluded_loss"] = (("seed", "step"), np.array([[9, 9, 3.0, 1, 2, 3, 4, 0.0]]))
    ends = retrospective_phases(dataset)
    assert ends["decided"].all()
    assert _pair(ends, "circuit_formation_end") == [100, 200]
    assert _pair(ends, "cleanup_end") == [100, 200]
    assert _pair(ends, "memorisation_end") == [20, 100]
    assert ends.attrs["reference_step"] == 1000
    # Cut while it still falls, it is undecided.
    early = retrospective_phases(dataset.isel(step=slice(None, 7)))
    assert not early["decided"].any()
    assert _pair(early, "memorisation_end") == [10, INF]


@pytest.mark.parametrize(
    ("settings_of_rule", "message"),
    [
        ({"level": 99.0}, r"level=99\.0 is no accuracy"),
        ({"gap": 0.5}, r"gap=0\.5 is no gap in ratio\. Give a finite number of at least 1"),
        ({"gap": -1, "unit": "steps"}, r"gap=-1 is no gap in steps"),
    ],
)
def test_a_rule_refuses_invalid_numbers(settings_of_rule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GrokkingRule(**settings_of_rule)


def test_missing_curves_are_named() -> None:
    dataset = _dataset((LEARNS, GROKS, LOSSES)).drop_vars(["test_accuracy"])
    for dates in (grokking_dates, retrospective_phases):
        with pytest.raises(ValueError, match=r"no test_accuracy\. It has"):
            dates(dataset)


def test_a_share_of_examples_that_equals_the_level_is_at_the_level() -> None:
    for count in range(1, 1000):
        for right in {round(level * count) for level in (0.3, 0.8, 0.9, 0.95, 0.99)}:
            share = np.float32(right) / np.float32(count)
            below = np.float32(right - 1) / np.float32(count)
            reached = first_crossing(np.array([0, 1]), np.array([below, share]), right / count)
            assert reached == (0.0, 1.0), (right, count)


def test_phases_that_may_lie_before_the_first_snapshot_are_open_and_not_absent() -> None:
    dataset = xr.Dataset(
        {
            name: (("seed", "step"), np.array([[1.0, 1.0]]))
            for name in ("train_accuracy", "test_accuracy", "test_loss")
        },
        {"seed": [0], "step": [500, 600]},
    )
    dates = grokking_dates(dataset)
    for name in ("memorised", "generalised", "circuit_formation_end", "cleanup_end"):
        assert dates[name].values.tolist() == [[-np.inf, 500]], name
