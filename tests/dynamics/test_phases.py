"""The three phases of planted curves, whose ends are known by the stated rule."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_jax.dynamics import Phases, phases

NAN = float("nan")
STEPS = np.array([0, 9, 99, 999, 9_999, 99_999])
"""log10(step + 1) is 0, 1, 2, 3, 4, 5."""
# Crosses .99 at 98 % of the way from 9 to 99.
LEARNS = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]
GROKS = [0.0, 0.0, 0.0, 0.2, 0.9, 1.0]
# log10 of the test loss: its maximum is 1, at 99, its minimum after that -4: 10 % of the fall is at
# .5, 90 % at -3.5.
FALLS = [-9.0, 0.0, 1.0, 0.8, -2.0, -4.0]
# Smaller before memorisation and after circuit formation; smallest between them at 999.
EXCLUDED = [5.0, 0.01, 1.0, 0.5, 0.1, 9.0]
FORMED, CLEANED = 10 ** (3 + 0.3 / 2.8) - 1, 10**4.75 - 1


def _dataset(*rows: tuple[list[float], list[float], list[float], list[float]]) -> xr.Dataset:
    """One row per seed: training accuracy, test accuracy, log10 of the test loss, excluded loss."""
    train, test, logs, excluded = (np.array(curves) for curves in zip(*rows, strict=True))
    curves = {
        "train_accuracy": train,
        "test_accuracy": test,
        "test_loss": 10.0**logs,
        "excluded_loss": excluded,
    }
    seeds = list(range(4, 4 + len(rows)))
    return xr.Dataset(
        {name: (("seed", "step"), values) for name, values in curves.items()},
        {"seed": seeds, "step": STEPS},
    )


def _ends(found: Phases) -> np.ndarray:
    """The three ends [end seed]."""
    return np.stack([found.memorisation_end, found.circuit_formation_end, found.cleanup_end])


def test_planted_phases_end_where_the_rule_says() -> None:
    found = phases(_dataset((LEARNS, GROKS, FALLS, EXCLUDED)))
    np.testing.assert_allclose(_ends(found)[:, 0], [999, FORMED, CLEANED], rtol=1e-12)
    assert found.verdict.values.tolist() == ["grokked"]
    for end in found[:3]:
        assert (end.dims, end.attrs["units"], end["seed"].values.tolist()) == (
            ("seed",),
            "steps",
            [4],
        )


def test_each_seed_has_its_own_ends_and_verdict() -> None:
    later = [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]
    rows = (
        (LEARNS, GROKS, FALLS, EXCLUDED),
        (LEARNS, [0.0, 0.0, 0.1, 0.2, 0.3, 0.98], FALLS, EXCLUDED),
        ([0.0, 0.5, 0.9, 0.98, 0.98, 0.98], [0.0] * 6, FALLS, EXCLUDED),
        (later, GROKS, FALLS, EXCLUDED),
    )
    found = phases(_dataset(*rows))
    assert found.verdict.values.tolist() == [
        "grokked",
        "did not grok",
        "did not memorise",
        "grokked",
    ]
    expected = [[999, NAN, NAN, 999], [FORMED, NAN, NAN, FORMED], [CLEANED, NAN, NAN, CLEANED]]
    np.testing.assert_allclose(_ends(found), expected, rtol=1e-12)
    for row, seed in enumerate((4, 5, 6, 7)):
        alone = phases(_dataset(*rows).sel(seed=[seed]))
        np.testing.assert_array_equal(_ends(alone)[:, 0], _ends(found)[:, row])


def test_a_seed_that_never_memorises_did_not_grok() -> None:
    found = phases(_dataset(([0.0, 0.5, 0.9, 0.9, 0.9, 0.9], GROKS, FALLS, EXCLUDED)))
    assert found.verdict.values.tolist() == ["did not memorise"]
    assert np.isnan(_ends(found)).all()


def test_without_excluded_loss_memorisation_ends_at_the_crossing() -> None:
    dataset = _dataset((LEARNS, GROKS, FALLS, EXCLUDED)).drop_vars("excluded_loss")
    np.testing.assert_allclose(phases(dataset).memorisation_end, [10**1.98 - 1], rtol=1e-12)


def test_without_a_snapshot_between_the_two_there_are_no_phases() -> None:
    falls = [1.0, 0.0, -4.0, -4.0, -4.0, -4.0]
    same, sooner = [0.0, 0.9, 1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    next_ = [0.0, 0.0, 0.9, 1.0, 1.0, 1.0]
    rows = (
        (LEARNS, same, falls, EXCLUDED),
        (LEARNS, sooner, falls, EXCLUDED),
        (LEARNS, next_, FALLS, EXCLUDED),
    )
    found = phases(_dataset(*rows))
    assert found.verdict.values.tolist() == [
        "generalised at once",
        "generalised at once",
        "grokked",
    ]
    assert np.isnan(_ends(found)[:, :2]).all()
    assert np.isfinite(_ends(found)[:, 2]).all()


@pytest.mark.parametrize("last", range(1, 6))
def test_a_seed_that_has_not_grokked_has_no_end_at_the_budget(last: int) -> None:
    """Excluded loss that still falls would end memorisation at the last snapshot, whichever."""
    falling = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5]
    dataset = _dataset((LEARNS, [0.0] * 6, FALLS, falling)).isel(step=slice(None, last + 1))
    assert np.isnan(_ends(phases(dataset))).all()


def test_a_loss_that_falls_before_memorisation_dates_no_circuit() -> None:
    noisy = [1.0, 0.2, 0.9, 0.8, -2.0, -4.0]
    found = phases(_dataset((LEARNS, GROKS, noisy, EXCLUDED), (LEARNS, GROKS, FALLS, EXCLUDED)))
    assert found.verdict.values.tolist() == ["grokked", "grokked"]
    assert np.isnan(_ends(found)[:, 0]).all()
    np.testing.assert_allclose(_ends(found)[:, 1], [999, FORMED, CLEANED], rtol=1e-12)


def test_values_that_are_not_finite_are_left_out() -> None:
    """No curve is finite at 9; excluded loss is not at 999 either, so it is smallest at 99."""
    gaps = [np.array(curve) for curve in (LEARNS, GROKS, FALLS, EXCLUDED)]
    for curve in gaps:
        curve[1] = NAN
    gaps[3][3] = NAN
    found = phases(_dataset(tuple(curve.tolist() for curve in gaps)))  # pyright: ignore[reportArgumentType]
    # Training accuracy now rises from 0 at 0 to 1 at 99.
    assert found.verdict.values.tolist() == ["grokked"]
    np.testing.assert_allclose(_ends(found)[:, 0], [99, FORMED, CLEANED], rtol=1e-12)


def test_a_seed_that_turned_non_finite_after_memorising_did_not_grok() -> None:
    broken = [[*curve[:3], NAN, NAN, NAN] for curve in (LEARNS, GROKS, FALLS, EXCLUDED)]
    found = phases(_dataset(tuple(broken)))  # pyright: ignore[reportArgumentType]
    assert found.verdict.values.tolist() == ["did not grok"]
    assert np.isnan(_ends(found)).all()


@pytest.mark.parametrize("value", [float("inf"), NAN])
def test_one_infinite_test_loss_before_the_fall_is_no_maximum(value: float) -> None:
    dataset = _dataset((LEARNS, GROKS, FALLS, EXCLUDED))
    dataset["test_loss"][0, 0] = value
    np.testing.assert_allclose(_ends(phases(dataset))[:, 0], [999, FORMED, CLEANED], rtol=1e-12)


def test_a_test_loss_that_underflows_to_zero_ends_no_fall() -> None:
    dataset = _dataset((LEARNS, GROKS, FALLS, EXCLUDED))
    dataset["test_loss"][0, 5] = (
        0.0  # the smallest value that has a logarithm is now 1e-2: the fall is 3 decades
    )
    formed, cleaned = 10 ** (3 + 0.1 / 2.8) - 1, 10 ** (3 + 2.5 / 2.8) - 1
    np.testing.assert_allclose(_ends(phases(dataset))[1:, 0], [formed, cleaned], rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, NAN])
def test_without_any_test_loss_to_read_nothing_is_dated_by_it(value: float) -> None:
    dataset = _dataset((LEARNS, GROKS, FALLS, EXCLUDED))
    dataset["test_loss"][0] = value
    assert np.isnan(_ends(phases(dataset))).all()


@settings(deadline=None)
@given(st.floats(-6, 6), st.permutations(range(3)))
def test_the_unit_of_the_loss_and_the_order_of_seeds_and_dims_do_not_matter(
    shift: float, order: list[int]
) -> None:
    rows = [
        (LEARNS, GROKS, FALLS, EXCLUDED),
        (LEARNS, [0.0] * 6, FALLS, EXCLUDED),
        (LEARNS, GROKS, [0.0, 2.0, 0.0, -1.0, -2.0, -2.0], EXCLUDED),
    ]
    plain = phases(_dataset(*rows))
    scaled = phases(
        _dataset(*[(a, b, [x + shift for x in c], d) for a, b, c, d in rows]).transpose(
            "step", "seed"
        )
    )
    np.testing.assert_allclose(_ends(scaled), _ends(plain), rtol=1e-9)
    turned = phases(_dataset(*rows).isel(seed=order))
    np.testing.assert_array_equal(_ends(turned), _ends(plain)[:, order])
    assert turned.memorisation_end["seed"].values.tolist() == [4 + row for row in order]


def test_missing_curves_are_named() -> None:
    dataset = _dataset((LEARNS, GROKS, FALLS, EXCLUDED)).drop_vars(["test_loss", "train_accuracy"])
    with pytest.raises(
        ValueError,
        match=r"no train_accuracy, test_loss\. It has excluded_loss, test_accuracy",
    ):
        phases(dataset)


def test_a_spike_after_grokking_moves_no_end_before_it() -> None:
    # The loss is at its minimum before it spikes above its old maximum.
    spiked = _dataset(
        (LEARNS, [0.0, 0.0, 0.0, 0.2, 1.0, 1.0], [-9.0, 0.0, 1.0, 0.8, -4.0, 2.0], EXCLUDED)
    )
    calm = _dataset(
        (LEARNS, [0.0, 0.0, 0.0, 0.2, 1.0, 1.0], [-9.0, 0.0, 1.0, 0.8, -4.0, -4.0], EXCLUDED)
    )
    np.testing.assert_array_equal(_ends(phases(spiked)), _ends(phases(calm)))
    assert np.isfinite(_ends(phases(spiked))).all()
