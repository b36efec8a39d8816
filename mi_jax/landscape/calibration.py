"""Calibration of SGLD: the estimate over a grid of step sizes and temperatures, and its plateau."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import require
from mi_jax.landscape.coefficient import LearningCoefficient, Real, learning_coefficient
from mi_jax.landscape.restriction import Restriction
from mi_jax.landscape.settings import SGLDSettings, settings_of_call
from mi_jax.landscape.subset import Examples

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
    settings: SGLDSettings | None = None,
    key: PRNGKey,
    mask: Restriction = None,
    data: Any = None,
    examples: Examples | None = None,
    tolerance: float = 0.1,
    **options: Any,
) -> "xarray.Dataset":
    """Estimates the learning coefficient at one checkpoint over a grid of step sizes and
    temperatures, and finds the plateau of the grid (``find_plateau``). One program is compiled.

    Args:
        loss: mean loss per example in nats, as for ``learning_coefficient``.
        params: the checkpoint w*.
        n: number of examples that the loss is a mean over.
        epsilons: step sizes, each positive; sorted, duplicates dropped.
        n_betas: temperatures, each positive; sorted, duplicates dropped.
        settings: settings of the chains; their epsilon and n_beta are replaced by the grid's.
        key: random key, the same for every cell.
        mask: parameters that are sampled, as for ``learning_coefficient``.
        data: pytree of arrays whose leading axis is the example.
        examples: the examples of ``data`` that the loss is averaged over.
        tolerance: relative tolerance of ``find_plateau``.
        options: deprecated: fields of ``SGLDSettings`` one by one.

    Returns:
        Dataset of dims (epsilon, n_beta): the estimate, its standard error, the bias of finite
        steps, R-hat and flags. ``plateau`` marks the cells of the plateau. The attributes
        ``epsilon``, ``n_beta`` and ``learning_coefficient`` are those of its middle (NaN if there
        is no plateau).

    Raises:
        ConfigError: if the grid is empty or not two lists, or a setting is missing or invalid.
    """
    require(
        np.ndim(epsilons) == np.ndim(n_betas) == 1,
        f"epsilons={epsilons}, n_betas={n_betas}: each must be a list.",
    )
    require(
        len(epsilons) > 0 and len(n_betas) > 0,
        f"epsilons={epsilons}, n_betas={n_betas}: each must hold at least one value.",
    )
    settings = settings_of_call(
        "calibrate", settings, options, required=("gamma", "burn_in", "draws", "chains")
    )
    # Without duplicates: one cell repeated three times would count as a plateau.
    rows, columns = sorted(set(map(float, epsilons))), sorted(set(map(float, n_betas)))

    def cell(epsilon: float, n_beta: float) -> LearningCoefficient:
        estimate = learning_coefficient(
            loss,
            params,
            n=n,
            settings=replace(settings, epsilon=epsilon, n_beta=n_beta),
            key=key,
            mask=mask,
            data=data,
            examples=examples,
        )
        return jax.device_get(estimate)

    cells = [[cell(epsilon, n_beta) for n_beta in columns] for epsilon in rows]

    def table(read: Any) -> tuple[tuple[str, str], np.ndarray]:
        return ("epsilon", "n_beta"), np.array([[read(cell) for cell in row] for row in cells])

    variables = {name: table(lambda cell, name=name: getattr(cell, name)) for name in _SCALARS}
    variables["acceptance"] = table(lambda cell: cell.acceptance.mean())
    variables |= {
        flag: table(lambda cell, flag=flag: getattr(cell.flags, flag))
        for flag in cells[0][0].flags._fields
    }
    # xarray and pandas take half as long to import as jax; `mi-jax list` needs neither.
    import xarray

    dataset = xarray.Dataset(variables, coords={"epsilon": rows, "n_beta": columns})
    protocol = {
        "n": n,
        "gamma": settings.gamma,
        "burn_in": settings.burn_in,
        "draws": settings.draws,
        "chains": settings.chains,
    }
    return find_plateau(dataset.assign_attrs(protocol), tolerance=tolerance)


def find_plateau(sweep: "xarray.Dataset", *, tolerance: float = 0.1) -> "xarray.Dataset":
    """Marks the largest connected part of a grid on which the estimates agree.

    A cell is usable if its standard error is at most ``tolerance`` times its estimate and no flag
    except ``below_start`` is set. From each usable cell a plateau grows over neighbours (in
    epsilon or n_beta) whose estimates differ from the estimate of *that first* cell by at most
    ``tolerance`` times it, or by two combined standard errors. The largest plateau wins; among
    equally large ones, the one with the smallest range. A plateau has at least three cells.

    Args:
        sweep: dataset of dims (epsilon, n_beta) that ``calibrate`` returns.
        tolerance: relative tolerance, 0 or more.

    Returns:
        The sweep with the variable ``plateau``, and the attributes ``epsilon`` and ``n_beta`` (of
        the middle of the plateau) and ``learning_coefficient`` (its median); NaN if there is no
        plateau.

    Raises:
        ConfigError: if the tolerance is negative.
    """
    require(tolerance >= 0, f"tolerance={tolerance}: must be at least 0.")
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
        best = np.zeros_like(usable)
        attrs = dict.fromkeys(("epsilon", "n_beta", "learning_coefficient"), np.nan)
    else:
        row, column = _middle(best)
        attrs = {
            "epsilon": float(sweep["epsilon"][row]),
            "n_beta": float(sweep["n_beta"][column]),
            "learning_coefficient": float(np.median(value[best])),
        }
    return sweep.assign(plateau=(("epsilon", "n_beta"), best)).assign_attrs(attrs)


def _middle(cells: np.ndarray) -> tuple[int, int]:
    """The (row, column) with the smallest total grid distance to the others; the first of ties."""
    indices = np.argwhere(cells)
    distances = np.abs(indices[:, None] - indices[None]).sum(axis=(1, 2))
    row, column = indices[distances.argmin()]
    return int(row), int(column)


def _spread(value: np.ndarray, cells: np.ndarray) -> float:
    """Range of the values in the cells; infinite if there are no cells."""
    return float(np.ptp(value[cells])) if cells.any() else np.inf


def _connected(allowed: np.ndarray, start: tuple[Any, ...]) -> np.ndarray:
    """Mask of the allowed cells that are connected to ``start`` through shared sides."""
    reached, todo = np.zeros_like(allowed), [tuple(int(i) for i in start)]
    while todo:
        i, j = todo.pop()
        inside = 0 <= i < allowed.shape[0] and 0 <= j < allowed.shape[1]
        if inside and allowed[i, j] and not reached[i, j]:
            reached[i, j] = True
            todo += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
    return reached
