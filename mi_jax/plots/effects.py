"""Effects beside their controls: one value per seed and condition, paired by seed."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.dynamics import interval
from mi_jax.plots.style import COLOURS, COLUMN, styled, with_units


@styled
def paired_effects(effects: xr.Dataset) -> Figure:
    """Draws one panel per effect: a grey line per seed across the conditions, a dot for each
    median and a bar for its interval over seeds (``dynamics.interval``).

    Args:
        effects: variables of dims (condition, seed); their attributes ``long_name`` and ``units``
            label the axes. NaN (never) is left out.

    Returns:
        The Figure.

    Example::

        effects = xr.Dataset(
            {"delay": (("condition", "seed"), delays, {"units": "steps"})},
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
    """Draws one effect, dims (condition, seed)."""
    values = effect.transpose("condition", "seed").values
    positions = np.arange(len(values))
    axes.axhline(0, color=COLOURS["date"], lw=0.6, ls=":")
    axes.plot(positions, values, "-o", color="#999999", lw=0.6, ms=2, alpha=0.8, zorder=1)
    for x, by_seed in enumerate(values):
        over = interval(by_seed)
        axes.plot([x, x], [over.low, over.high], color=COLOURS["used"], lw=2, zorder=2)
        axes.plot(x, over.middle, "o", color=COLOURS["used"], ms=5, zorder=3)
    axes.set_xticks(positions, [str(label) for label in effect["condition"].values])
    axes.set_xlim(-0.4, len(values) - 0.6)
    axes.set_ylabel(with_units(effect.attrs.get("long_name", str(effect.name)), effect))
