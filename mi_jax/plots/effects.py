"""Effects beside their controls: one value per seed and condition, paired by seed."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.dynamics import date_interval, interval
from mi_jax.plots.style import COLOURS, COLUMN, styled, with_units


@styled
def paired_effects(effects: xr.Dataset) -> Figure:
    """Draws one panel per effect: a grey line per seed across the conditions, a dot for each
    median and a bar for its interval over seeds (``dynamics.interval``).

    An effect on a date lies between two bounds. Each seed is then a grey bar between them, and the
    dot of the median one too; what is open above (below) ends in an arrow at that edge, and is part
    of the median and of its interval (``dynamics.date_interval``).

    Args:
        effects: variables of dims (condition, seed), and of dims (condition, seed, bound) for
            numbers of steps between two dates (``dynamics.date_differences``); their attributes
            ``long_name`` and ``units`` label the axes. NaN is left out.

    Returns:
        The Figure.

    Example::

        effects = xr.Dataset(
            {"kept": (("condition", "seed"), shares)},
            {"condition": ["key frequency", "other frequency"]},
        )
        plots.paired_effects(effects)
    """
    names = list(effects.data_vars)
    figure = Figure(figsize=(COLUMN * len(names), 2.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _draw_effect(axes, effects[name])
    return figure


def _draw_effect(axes: Axes, effect: xr.DataArray) -> None:
    """Draws one effect, dims (condition, seed), or (condition, seed, bound) for dates."""
    positions = np.arange(effect.sizes["condition"])
    axes.axhline(0, color=COLOURS["date"], lw=0.6, ls=":")
    axes.set_xticks(positions, [str(label) for label in effect["condition"].values])
    axes.set_xlim(-0.4, len(positions) - 0.6)
    axes.set_ylabel(with_units(effect.attrs.get("long_name", str(effect.name)), effect))
    if "bound" in effect.dims:
        _draw_shifts(axes, effect.transpose("condition", "seed", "bound"))
        return
    values = effect.transpose("condition", "seed").values
    axes.plot(positions, values, "-o", color="#999999", lw=0.6, ms=2, alpha=0.8, zorder=1)
    for x, by_seed in enumerate(values):
        over = interval(by_seed)
        axes.plot([x, x], [over.low, over.high], color=COLOURS["used"], lw=2, zorder=2)
        axes.plot(x, over.middle, "o", color=COLOURS["used"], ms=5, zorder=3)


def _draw_shifts(axes: Axes, shifts: xr.DataArray) -> None:
    """Draws numbers of steps between two bounds, dims (condition, seed, bound)."""
    values = shifts.values
    finite = values[np.isfinite(values)]
    low, high = float(finite.min(initial=0)), float(finite.max(initial=0))
    room = 0.15 * max(high - low, 1.0)
    limits = (low - room, high + room)
    axes.set_ylim(*limits)
    offsets = np.linspace(-0.25, 0.25, values.shape[1]) if values.shape[1] > 1 else np.zeros(1)
    middles = np.where(np.isfinite(values).all(axis=-1), values.mean(axis=-1), np.nan)
    for row, offset in enumerate(offsets):
        x = np.arange(len(values)) + offset
        axes.plot(x, middles[:, row], "-", color="#999999", lw=0.4, alpha=0.5, zorder=1)
        for place, pair in zip(x, values[:, row], strict=True):
            _draw_range(axes, float(place), pair, limits, "#999999", 1.6)
    for x, of_condition in enumerate(shifts):
        over = date_interval(of_condition)
        if over.kind != "none":
            ends = np.array([over.low, over.high])
            _draw_range(axes, float(x), ends, limits, COLOURS["used"], 1.4)
        _draw_range(axes, float(x), np.array(over.middle), limits, COLOURS["used"], 5.0)


def _draw_range(
    axes: Axes,
    x: float,
    pair: np.ndarray,
    limits: tuple[float, float],
    colour: str,
    width: float,
) -> None:
    """Draws a bar between two bounds, with an arrow at the edge where one is open."""
    if np.isnan(pair).any():
        return
    axes.plot(
        [x, x],
        np.clip(pair, *limits),
        "-",
        color=colour,
        lw=width,
        solid_capstyle="butt",
        zorder=3 if colour == COLOURS["used"] else 2,
    )
    for bound, edge, mark in ((pair[1], limits[1], "^"), (pair[0], limits[0], "v")):
        if np.isinf(bound):
            axes.plot([x], [edge], mark, color=colour, ms=3 + width / 2, mew=0, clip_on=False)
