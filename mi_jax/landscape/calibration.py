"""Which step size and temperature to trust: the estimate over a grid of both, and the plateau on
it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import require
from mi_jax.landscape.coefficient import Real, learning_coefficient

if TYPE_CHECKING:
    import xarray

_SCALARS = (
    "learning_coefficient",
    "standard_error",
    "discretisation_bias",
    "localisation",
    "r_hat",
    "effective_draws",
    "share_below_start",
)


def calibrate(
    loss: Any,
    params: Params,
    *,
    n: Real,
    epsilons: Sequence[float],
    n_betas: Sequence[float],
    gamma: Real,
    burn_in: int,
    draws: int,
    chains: int,
    key: PRNGKey,
    tolerance: float = 0.1,
    **options: Any,
) -> "xarray.Dataset":
    """The estimate at one point over a grid of step sizes and temperatures, by one compiled
    program, and where it is flat.

    Args:
        epsilons, n_betas: the grid, each positive; put in rising order, each once.
        tolerance: see ``find_plateau``. options: those of ``learning_coefficient`` (data, mask,
            preconditioner ...).

    Returns:
        Dims (epsilon, n_beta): estimate, error, bias of finite steps, R-hat, flags; ``plateau``
        marks the flat part, the attrs ``epsilon``, ``n_beta`` and ``learning_coefficient`` are its
        middle (NaN where nothing is flat).
    """
    require(
        np.ndim(epsilons) == np.ndim(n_betas) == 1,
        f"epsilons={epsilons}, n_betas={n_betas}; a list of each is needed",
    )
    require(
        len(epsilons) > 0 and len(n_betas) > 0, "a sweep needs at least one epsilon and one n_beta"
    )
    # Each once: a cell that is there three times would be a plateau of its own.
    rows, columns = sorted(set(map(float, epsilons))), sorted(set(map(float, n_betas)))
    settings = {
        "n": n,
        "gamma": gamma,
        "burn_in": burn_in,
        "draws": draws,
        "chains": chains,
        "key": key,
        **options,
    }
    found = [
        [
            jax.device_get(learning_coefficient(loss, params, epsilon=e, n_beta=b, **settings))
            for b in columns
        ]
        for e in rows
    ]

    def table(read: Any) -> tuple[tuple[str, str], np.ndarray]:
        return ("epsilon", "n_beta"), np.array([[read(cell) for cell in row] for row in found])

    variables = {name: table(lambda cell, name=name: getattr(cell, name)) for name in _SCALARS}
    variables["acceptance"] = table(lambda cell: cell.acceptance.mean())
    variables |= {
        flag: table(lambda cell, flag=flag: getattr(cell.flags, flag))
        for flag in found[0][0].flags._fields
    }
    # xarray and its pandas take as long to import as half of jax; `mi-jax list` needs neither.
    import xarray

    dataset = xarray.Dataset(variables, coords={"epsilon": rows, "n_beta": columns})
    return find_plateau(
        dataset.assign_attrs(n=n, gamma=gamma, burn_in=burn_in, draws=draws, chains=chains),
        tolerance=tolerance,
    )


def find_plateau(sweep: "xarray.Dataset", *, tolerance: float = 0.1) -> "xarray.Dataset":
    """Marks the largest connected part of the grid on which estimates agree.

    A cell is usable if its error is within ``tolerance`` of it and no flag but ``below_start`` is
    up. From each usable cell a plateau grows over neighbours (in epsilon or n_beta) whose estimates
    differ from *that* cell's by at most ``tolerance`` of it, or by two combined standard errors.
    The largest wins (of equal ones, the one that varies least), if it has three cells.
    """
    require(tolerance >= 0, f"tolerance={tolerance}; 0 or more is needed")
    value, error = sweep["learning_coefficient"].values, sweep["standard_error"].values
    flagged = sweep["epsilon_too_large"] | sweep["negative"] | sweep["unmixed"] | sweep["diverged"]
    usable = ~flagged.values & np.isfinite(value) & (error <= tolerance * np.abs(value))
    best = np.zeros_like(usable)
    for cell in zip(*np.nonzero(usable), strict=True):
        near = np.abs(value - value[cell]) <= np.maximum(
            tolerance * abs(value[cell]), 2 * np.hypot(error, error[cell])
        )
        grown = _connected(usable & near, cell)
        if (grown.sum(), -_spread(value, grown)) > (best.sum(), -_spread(value, best)):
            best = grown
    if best.sum() < 3:
        best, told = np.zeros_like(usable), (np.nan, np.nan, np.nan)
    else:
        row, column = _middle(best)
        told = (
            float(sweep["epsilon"][row]),
            float(sweep["n_beta"][column]),
            float(np.median(value[best])),
        )
    attrs = dict(zip(("epsilon", "n_beta", "learning_coefficient"), told, strict=True))
    return sweep.assign(plateau=(("epsilon", "n_beta"), best)).assign_attrs(attrs)


def _middle(cells: np.ndarray) -> tuple[int, int]:
    """The cell with the least sum of steps to the others, on the grid; the first of equals."""
    places = np.argwhere(cells)
    apart = np.abs(places[:, None] - places[None]).sum(axis=(1, 2))
    row, column = places[apart.argmin()]
    return int(row), int(column)


def _spread(value: np.ndarray, cells: np.ndarray) -> float:
    return float(np.ptp(value[cells])) if cells.any() else np.inf


def _connected(allowed: np.ndarray, start: tuple[Any, ...]) -> np.ndarray:
    """The allowed cells that can be reached from a cell over sides."""
    reached, todo = np.zeros_like(allowed), [tuple(int(i) for i in start)]
    while todo:
        i, j = todo.pop()
        inside = 0 <= i < allowed.shape[0] and 0 <= j < allowed.shape[1]
        if inside and allowed[i, j] and not reached[i, j]:
            reached[i, j] = True
            todo += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
    return reached
