"""Histories that part: a run and its forks, reading by reading, and how far their weights have
drifted from the run's.
"""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.dynamics import interval
from mi_jax.plots.style import COLOURS, WIDE, step_axis, styled, with_units

_PANEL = 1.9
_DECADES = 1e2
_FIRST = "#000000"


@styled
def diverging_histories(dataset: xr.Dataset, *, columns: int = 2, scale: str = "linear") -> Figure:
    """A panel for each variable, a colour for each history, the first dashed on top; thin lines are
    seeds, thick ones medians.

    Args:
        dataset: variables of dims (condition, seed, step); NaN where a history has no such step.
            Its attr ``parted`` holds the steps at which histories left the first: dotted lines.
        scale: of the step axis, "linear" or "log".
    """
    names = [str(name) for name in dataset.data_vars]
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(WIDE, _PANEL * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    labels = [str(label) for label in dataset["condition"].values]
    cycle = [colour for colour in COLOURS["cycle"].split() if colour != _FIRST]
    colours = [_FIRST, *(cycle[place % len(cycle)] for place in range(len(labels) - 1))]
    for axes, name in zip(grid, names, strict=False):
        for label, colour in zip(labels, colours, strict=True):
            _history(axes, dataset[name].sel(condition=label), colour, label)
        values = dataset[name].values
        positive = values[np.isfinite(values) & (values > 0)]
        units = dataset[name].attrs.get("units")
        share = units is None and np.nanmax(values, initial=0) <= 1
        if (
            len(positive)
            and np.nanmin(values) >= 0
            and positive.max() > _DECADES * positive.min()
            and not share
        ):
            axes.set_yscale("log")
        step_axis(axes, dataset["step"].values, "log" if scale == "log" else "linear")
        axes.set_xlim(float(dataset["step"].min()), float(dataset["step"].max()))
        axes.set_xlabel("")
        axes.set_title(with_units(name.replace("_", " "), dataset[name]))
        for step in np.unique(np.atleast_1d(dataset.attrs.get("parted", []))):
            axes.axvline(step, color=COLOURS["date"], lw=0.6, ls=":")
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for axes in grid[max(len(names) - columns, 0) : len(names)]:
        axes.xaxis.set_tick_params(labelbottom=True)
    figure.supxlabel("step (optimizer updates)", fontsize=8)
    handles, told = grid[0].get_legend_handles_labels()
    figure.legend(
        handles,
        told,
        frameon=False,
        loc="outside upper center",
        ncols=min(len(told), 4),
        handlelength=1.6,
    )
    return figure


def _history(axes: Axes, values: xr.DataArray, colour: str, label: str) -> None:
    """One history of one variable."""
    rows = values.transpose("seed", "step")
    steps = rows["step"].values
    some = np.isfinite(rows.values).any(axis=0)
    if not some.any():
        return
    middle = np.array([interval(column).middle for column in rows.values[:, some].T])
    if len(rows) > 1:
        axes.plot(steps[some], rows.values[:, some].T, color=colour, lw=0.4, alpha=0.35)
    first = colour == _FIRST
    axes.plot(
        steps[some],
        middle,
        "--" if first else "-",
        color=colour,
        lw=1.1 if first else 1.5,
        label=label,
        zorder=3 if first else 2,
    )
