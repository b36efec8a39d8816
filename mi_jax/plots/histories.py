"""Diverging histories: a run and its forks, reading by reading."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.dynamics import date_interval, interval
from mi_jax.plots.style import (
    COLOURS,
    WIDE,
    Scale,
    finish_panels,
    step_axis,
    styled,
    with_units,
)

_PANEL = 1.9
"""Height of a row of panels, in inches."""
_LOG_FROM = 1e2
"""Largest over smallest positive value from which on an axis is logarithmic."""
_ROW = 0.06
"""Height of a row of the median dates, as a share of a panel's."""
_FIRST = "#000000"
"""Colour of the first history, which no other has."""


@styled
def diverging_histories(
    dataset: xr.Dataset,
    *,
    dates: xr.Dataset | None = None,
    columns: int = 2,
    scale: Scale = "linear",
) -> Figure:
    """Draws one panel per variable and one colour per history; thin lines are seeds, thick ones
    medians over seeds. The first history is dashed and on top.

    Args:
        dataset: variables of dims (condition, seed, step); NaN where a history has no such step.
            Its attribute ``parted`` lists the steps at which histories left the first one: they
            are drawn as dotted lines.
        dates: ``generalised``, dims (condition, seed, bound), in steps: for each history a bar
            along the top of every panel, between the two bounds of its median date. Where that
            lies beyond the last snapshot, the bar ends in an arrow at the right edge.
        columns: of the grid of panels.
        scale: of the step axis, "linear" or "log".

    Returns:
        The Figure.

    Example::

        comparison = mi_jax.compare(run, [fork])
        plots.diverging_histories(comparison.dataset[["test_loss", "weight_distance"]])
    """
    names = [str(name) for name in dataset.data_vars]
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(WIDE, _PANEL * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    conditions = [str(label) for label in dataset["condition"].values]
    cycle = [colour for colour in COLOURS["cycle"].split() if colour != _FIRST]
    colours = [_FIRST, *(cycle[i % len(cycle)] for i in range(len(conditions) - 1))]
    for axes, name in zip(grid, names, strict=False):
        for condition, colour in zip(conditions, colours, strict=True):
            _draw_history(axes, dataset[name].sel(condition=condition), colour, condition)
        if _is_wide(dataset[name]):
            axes.set_yscale("log")
        step_axis(axes, dataset["step"].values, scale)
        axes.set_xlim(float(dataset["step"].min()), float(dataset["step"].max()))
        axes.set_xlabel("")
        axes.set_title(with_units(name.replace("_", " "), dataset[name]))
        for step in np.unique(np.atleast_1d(dataset.attrs.get("parted", []))):
            axes.axvline(step, color=COLOURS["date"], lw=0.6, ls=":")
        if dates is not None and "generalised" in dates:
            _make_room(axes, _ROW * (len(conditions) + 0.5))
            for row, (condition, colour) in enumerate(zip(conditions, colours, strict=True)):
                height = 1 - (row + 1) * _ROW / (1 + _ROW * (len(conditions) + 0.5))
                of_condition = dates["generalised"].sel(condition=condition)
                _draw_median(axes, of_condition, height, colour)
    finish_panels(figure, grid, len(names), columns)
    handles, conditions = grid[0].get_legend_handles_labels()
    if dates is not None and "generalised" in dates:
        handles.append(Line2D([], [], color=COLOURS["date"], marker="|", ms=4, lw=1.6))
        conditions.append("generalised (median date)")
    figure.legend(
        handles,
        conditions,
        frameon=False,
        loc="outside upper center",
        ncols=min(len(conditions), 4),
        handlelength=1.6,
    )
    return figure


def _is_wide(readings: xr.DataArray) -> bool:
    """Whether a logarithmic axis suits: no value is negative, the positive ones span more than two
    decades, and it is no share between 0 and 1 (a number without units).
    """
    values = readings.values
    positive = values[np.isfinite(values) & (values > 0)]
    is_share = readings.attrs.get("units") is None and np.nanmax(values, initial=0) <= 1
    return bool(
        len(positive)
        and np.nanmin(values) >= 0
        and positive.max() > _LOG_FROM * positive.min()
        and not is_share
    )


def _draw_history(axes: Axes, values: xr.DataArray, colour: str, label: str) -> None:
    """Draws one variable of one history, dims (seed, step), at the steps that the history has."""
    rows = values.transpose("seed", "step")
    steps = rows["step"].values
    some = np.isfinite(rows.values).any(axis=0)
    if not some.any():
        return
    medians = np.array([interval(column).middle for column in rows.values[:, some].T])
    if len(rows) > 1:
        axes.plot(steps[some], rows.values[:, some].T, color=colour, lw=0.4, alpha=0.35)
    first = colour == _FIRST
    axes.plot(
        steps[some],
        medians,
        "--" if first else "-",
        color=colour,
        lw=1.1 if first else 1.5,
        label=label,
        zorder=3 if first else 2,
    )


def _make_room(axes: Axes, share: float) -> None:
    """Extends the vertical axis upwards by a share of its height."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        axes.set_ylim(low, high * (high / low) ** share)
    else:
        axes.set_ylim(low, high + share * (high - low))


def _draw_median(axes: Axes, dates: xr.DataArray, height: float, colour: str) -> None:
    """Draws the median date of one history, at a height given as a share of the axes'.

    A median that is open below has no left tick, one that is open above an arrow instead of the
    right one.
    """
    low, high = date_interval(dates).middle
    if np.isnan(low):
        return
    left, right = axes.get_xlim()
    place = axes.get_xaxis_transform()
    begin, end = np.clip([low, high], left, right)
    axes.plot([begin, end], [height] * 2, "-", lw=1.6, color=colour, transform=place, zorder=4)
    marks = [(begin, "|")] if np.isfinite(low) else []
    marks.append((end, "|" if np.isfinite(high) else ">"))
    for step, mark in marks:
        axes.plot(
            [step],
            [height],
            mark,
            ms=4,
            color=colour,
            transform=place,
            zorder=4,
            clip_on=False,
        )
