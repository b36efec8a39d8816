"""Effects with their controls: one value a seed under each condition, paired."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.dynamics import interval
from mi_jax.plots.style import COLOURS, COLUMN, styled, with_units


@styled
def paired_effects(effects: xr.Dataset) -> Figure:
    """A panel for each effect: a grey line a seed across the conditions; dots are medians, bars
    their intervals over seeds.

    Args:
        effects: variables of dims (condition, seed); their ``long_name`` and ``units`` label the
            axes. NaN (never) is left out.
    """
    names = list(effects.data_vars)
    figure = Figure(figsize=(COLUMN * len(names), 2.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _paired(axes, effects[name])
    return figure


def _paired(axes: Axes, effect: xr.DataArray) -> None:
    """One effect; see ``dynamics.interval`` for the bars."""
    values = effect.transpose("condition", "seed").values
    places = np.arange(len(values))
    axes.axhline(0, color=COLOURS["date"], lw=0.6, ls=":")
    axes.plot(places, values, "-o", color="#999999", lw=0.6, ms=2, alpha=0.8, zorder=1)
    for place, row in enumerate(values):
        found = interval(row)
        axes.plot([place, place], [found.low, found.high], color=COLOURS["used"], lw=2, zorder=2)
        axes.plot(place, found.middle, "o", color=COLOURS["used"], ms=5, zorder=3)
    axes.set_xticks(places, [str(label) for label in effect["condition"].values])
    axes.set_xlim(-0.4, len(values) - 0.6)
    axes.set_ylabel(with_units(effect.attrs.get("long_name", str(effect.name)), effect))
