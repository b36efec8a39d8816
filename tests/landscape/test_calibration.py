"""Calibration over step size and temperature, and its plateau, on grids of known answer."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from mi_jax.basics.errors import ConfigError
from mi_jax.landscape import (
    SGLDSettings,
    calibrate,
    exact,
    find_plateau,
    learning_coefficient,
)
from mi_jax.plots import calibration_curves

_EPSILONS, _N_BETAS = [1e-4, 1e-3, 1e-2], [10.0, 100.0]


def _grid(values: Any, bad: Any = 0, error: float = 0.01) -> xr.Dataset:
    values = np.array(values, float)

    def flag(x: Any) -> tuple[tuple[str, str], Any]:
        return ("epsilon", "n_beta"), np.broadcast_to(np.array(x, bool), values.shape)

    variables = {
        "learning_coefficient": (("epsilon", "n_beta"), values),
        "standard_error": (("epsilon", "n_beta"), np.full(values.shape, error)),
        "epsilon_too_large": flag(bad),
        **{name: flag(0) for name in ("negative", "unmixed", "diverged")},
    }
    coords = {
        "epsilon": 10.0 ** -np.arange(4, 4 - len(values), -1),
        "n_beta": 2.0 ** np.arange(values.shape[1]),
    }
    return xr.Dataset(variables, coords)


def test_the_plateau_is_the_largest_connected_part_that_agrees_with_its_middle() -> None:
    found = find_plateau(_grid([[1, 5.0, 5.1, 9], [1.5, 5.2, 5.0, 5], [2, 3, 5.0, 99]]))
    assert found["plateau"].values.astype(int).tolist() == [
        [0, 1, 1, 0],
        [0, 1, 1, 1],
        [0, 0, 1, 0],
    ]
    assert found.attrs["learning_coefficient"] == pytest.approx(5.0)


def test_a_slow_drift_is_no_plateau() -> None:
    """Neighbours agree within the tolerance, but the ends do not."""
    found = find_plateau(_grid([[1.0 * 1.08**i for i in range(12)]]))
    assert found["plateau"].sum() == 3


def test_a_plateau_reports_its_middle_not_the_cell_that_it_grew_from() -> None:
    rows = np.array([[9.0, 9.0, 5.0, 5.0, 5.0, 5.0, 5.0, 9.0], np.linspace(20, 90, 8)])
    for table in (rows, rows[::-1]):
        found = find_plateau(_grid(table.T))
        assert found["plateau"].sum() == 5
        assert found.attrs["epsilon"] == found["epsilon"].values[4]
        assert found.attrs["n_beta"] == found["n_beta"].values[0 if table is rows else 1]


def test_flagged_and_uncertain_cells_are_left_out_and_two_cells_are_not_enough() -> None:
    bad = [[0, 0, 1], [0, 1, 1]]
    assert find_plateau(_grid(np.full((2, 3), 5.0), bad))["plateau"].values.astype(
        int
    ).tolist() == [[1, 1, 0], [1, 0, 0]]
    assert not find_plateau(_grid(np.full((2, 3), 5.0), error=0.6))["plateau"].any()
    nothing = find_plateau(_grid([[5.0, 5.0]]))
    assert not nothing["plateau"].any()
    assert np.isnan(nothing.attrs["epsilon"])


_SETTINGS = SGLDSettings(gamma=1.0, burn_in=300, draws=300, chains=32)


def _bowl(w: jax.Array) -> jax.Array:
    return 0.5 * (w**2).sum()


@pytest.fixture(scope="module")
def sweep() -> xr.Dataset:
    """Sweep of a quadratic in ten dimensions, stationary from the start of the second half."""
    return calibrate(
        _bowl,
        jnp.zeros(10),
        n=1000,
        epsilons=_EPSILONS[::-1],
        n_betas=_N_BETAS,
        settings=_SETTINGS,
        key=jax.random.key(0),
    )


def test_a_cell_of_the_sweep_equals_the_estimate_alone(sweep: xr.Dataset) -> None:
    alone = learning_coefficient(
        _bowl,
        jnp.zeros(10),
        n=1000,
        settings=replace(_SETTINGS, epsilon=_EPSILONS[1], n_beta=_N_BETAS[1]),
        key=jax.random.key(0),
    )
    cell = sweep.sel(epsilon=_EPSILONS[1], n_beta=_N_BETAS[1])
    for name in ("learning_coefficient", "standard_error", "r_hat", "effective_draws"):
        assert float(cell[name]) == float(getattr(alone, name))
    assert float(cell["share_below_start"]) == float(alone.share_below_start)
    for flag, up in alone.flags._asdict().items():
        assert bool(cell[flag]) == bool(up), flag


def test_a_sweep_agrees_with_the_closed_form_on_its_grid(sweep: xr.Dataset) -> None:
    assert sweep["epsilon"].values.tolist() == _EPSILONS
    for epsilon in _EPSILONS:
        for n_beta in _N_BETAS:
            expected = exact.quadratic(
                [1.0] * 10, n_beta=n_beta, gamma=1.0, epsilon=epsilon, burn_in=300, draws=300
            )
            found = float(sweep["learning_coefficient"].sel(epsilon=epsilon, n_beta=n_beta))
            assert found == pytest.approx(expected, rel=0.08)
    assert sweep.attrs["n"] == 1000
    assert bool(sweep["epsilon_too_large"].sel(epsilon=1e-2, n_beta=100.0))


def test_the_figure_shows_every_cell_once_flagged_ones_hollow_and_the_plateau_ringed(
    sweep: xr.Dataset,
) -> None:
    ringed = sweep.assign(plateau=sweep["epsilon"] < 2e-3 + 0 * sweep["n_beta"])
    axes = calibration_curves(ringed.transpose("epsilon", "n_beta", ...))
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    rings = sum(len(line.get_xdata()) for line in marks if line.get_markersize() == 7)
    hollow = sum(
        len(line.get_xdata())
        for line in marks
        if line.get_markersize() == 3 and isinstance(line.get_markerfacecolor(), str)
    )
    full = sum(
        len(line.get_xdata())
        for line in marks
        if line.get_markersize() == 3 and not isinstance(line.get_markerfacecolor(), str)
    )
    assert rings == 4
    assert hollow + full == 6
    assert hollow == int(
        (
            sweep["epsilon_too_large"] | sweep["negative"] | sweep["unmixed"] | sweep["diverged"]
        ).sum()
    )
    assert axes.get_xscale() == "log"


def test_a_cell_that_is_requested_three_times_is_no_plateau() -> None:
    found = calibrate(
        lambda w: (w**2).sum() / 2,
        jnp.zeros(3),
        n=100,
        epsilons=[1e-2] * 3,
        n_betas=[50.0],
        settings=SGLDSettings(gamma=1.0, burn_in=20, draws=400, chains=4),
        key=jax.random.key(0),
        tolerance=10.0,
    )
    assert dict(found.sizes) == {"epsilon": 1, "n_beta": 1}
    assert np.isnan(found.attrs["learning_coefficient"])


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match="each must hold at least one value"):
        calibrate(
            lambda w: (w**2).sum(),
            jnp.zeros(1),
            n=10,
            epsilons=[],
            n_betas=[1.0],
            settings=_SETTINGS,
            key=jax.random.key(0),
        )
