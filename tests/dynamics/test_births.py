"""Births of winners, checked by hand.

A birth is the first step from which a winner holds more than twice an even share until the end.
"""

import numpy as np
import pytest
import xarray as xr

from mi_jax.dynamics import births

INF = float("inf")
NAN = float("nan")
STEPS = [0, 10, 100, 1000]


def _shares(*by_frequency: list[float]) -> xr.DataArray:
    """One seed's shares of 8 frequencies; each row is one frequency over the steps.

    An even share is 1/8, twice that 1/4.
    """
    rows = np.zeros((8, 4))
    rows[: len(by_frequency)] = by_frequency
    coords = {"seed": [3], "step": STEPS, "frequency": np.arange(1, 9)}
    return xr.DataArray(rows.T[None], coords, ("seed", "step", "frequency"))


def _winners(*ks: int) -> xr.DataArray:
    mask = np.isin(np.arange(1, 9), ks)[None]
    return xr.DataArray(mask, {"seed": [3], "frequency": np.arange(1, 9)}, ("seed", "frequency"))


def _born(shares: xr.DataArray, *ks: int) -> list[list[float]]:
    return births(shares, _winners(*ks)).values[0, :4].tolist()


def test_a_winner_is_born_at_the_step_from_which_it_stays_ahead() -> None:
    shares = _shares(
        [0.1, 0.3, 0.4, 0.4], [0.3, 0.1, 0.1, 0.3], [0.5, 0.4, 0.3, 0.3], [0.1, 0.1, 0.2, 0.0]
    )
    np.testing.assert_array_equal(
        _born(shares, 1, 2, 3, 4), [[0, 10], [100, 1000], [-INF, 0], [1000, INF]]
    )


def test_a_loser_is_not_born() -> None:
    shares = _shares([0.4] * 4, [0.4] * 4)
    np.testing.assert_array_equal(_born(shares, 2), [[NAN, NAN], [-INF, 0], [NAN, NAN], [NAN, NAN]])


def test_twice_an_even_share_exactly_is_not_ahead() -> None:
    np.testing.assert_array_equal(_born(_shares([0.25, 0.25, 0.2501, 0.2501]), 1)[0], [10, 100])


@pytest.mark.parametrize("last", [NAN, 0.2])
def test_a_winner_that_ends_behind_or_at_nan_is_not_born_by_the_end(last: float) -> None:
    np.testing.assert_array_equal(_born(_shares([0.4, 0.4, 0.4, last]), 1)[0], [1000, INF])


def test_each_seed_has_its_own_births_whatever_the_order_of_dims() -> None:
    one, other = (
        _shares([0.1, 0.3, 0.4, 0.4]),
        _shares([0.3, 0.1, 0.3, 0.3]).assign_coords(seed=[9]),
    )
    shares = xr.concat([one, other], "seed")
    winners = xr.concat([_winners(1), _winners(1).assign_coords(seed=[9])], "seed")
    born = births(
        shares.transpose("frequency", "step", "seed"), winners.transpose("frequency", "seed")
    )
    assert born.dims == ("seed", "frequency", "bound")
    assert born.attrs["units"] == "steps"
    assert born["seed"].values.tolist() == [3, 9]
    assert born.sel(frequency=1).values.tolist() == [[0, 10], [10, 100]]
    assert np.isnan(born.sel(frequency=slice(2, None))).all()


def test_of_two_competitors_the_winner_is_born_half_way_from_an_even_share_to_all() -> None:
    first = np.array([0.5, 0.75, 0.76, 0.9])
    coords = {"seed": [3], "step": STEPS, "frequency": [1, 2]}
    shares = xr.DataArray(
        np.stack([first, 1 - first], axis=1)[None], coords, ("seed", "step", "frequency")
    )
    winners = xr.DataArray(
        [[True, True]], {"seed": [3], "frequency": [1, 2]}, ("seed", "frequency")
    )
    np.testing.assert_array_equal(births(shares, winners).values, [[[10, 100], [1000, INF]]])
