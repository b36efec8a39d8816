"""Figures of a sweep: dates against one setting, and the plane of two settings."""

import numpy as np
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from mi_jax.dynamics import VERDICTS, date_interval
from mi_jax.plots.style import COLOURS, WIDE, legend_above, new_axes, styled

_VERDICT_COLOURS = {
    "grokked": "#E69F00",
    "generalised at once": "#009E73",
    "generalised without memorising": "#F0E442",
    "did not grok": "#56B4E9",
    "did not memorise": "#999999",
    "diverged": "#D55E00",
    "undecided": "#CC79A7",
}
_ROOM = 0.35
"""Width that the seeds of one setting take, where settings are 1 apart."""

_LATER = "#eeeeee"
"""Colour of a setting whose median date lies beyond the last snapshot."""


@styled
def dates_against(summary: xr.Dataset, axis: str, *, ax: Axes | None = None) -> Axes:
    """Draws when seeds memorised and generalised against one swept setting.

    Each seed is a vertical bar from the last snapshot before to the first one after; an arrow
    upwards from the last snapshot stands for a seed that had not got there by then. The line is the
    median over all seeds, between its two bounds (a band); where the median lies beyond the last
    snapshot, the band goes on to the top.

    Args:
        summary: memorised and generalised, dims (axis, seed, bound), in steps; and budget, dims
            (axis), the steps that were trained, or one number for all as its attribute ``steps``.
        axis: the name of the setting, such as "optimizer.weight_decay".
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Example::

        summary = mi_jax.sweep(experiment, {"task.fraction": [0.3, 0.5, 0.7]}, "runs/fractions")
        axes = plots.dates_against(summary, "task.fraction")
    """
    axes = ax if ax is not None else new_axes()
    positions, tick_labels = _ticks(summary[axis].values)
    budgets = _budgets(summary, axis)
    budget = float(budgets.max())
    # Step 0 and dates that are open below lie at the foot of a logarithmic axis.
    finite = [summary[name].values for name in ("memorised", "generalised")]
    positive = np.concatenate([x[np.isfinite(x) & (x > 0)] for x in finite])
    foot, top = 0.7 * float(positive.min(initial=budget)), 2.0 * budget
    for name, colour, side in (
        ("memorised", COLOURS["train"], -1),
        ("generalised", COLOURS["test"], 1),
    ):
        dates = summary[name].transpose(axis, "seed", "bound")
        offsets = np.linspace(0.06, _ROOM, dates.sizes["seed"]) * side
        for x, by_seed in zip(positions, dates.values, strict=True):
            for offset, pair in zip(offsets, by_seed, strict=True):
                _draw_date(axes, x + offset, pair, (foot, top), colour)
        medians = np.array([_median(at_setting) for at_setting in dates])
        low, high = np.clip(medians, foot, top).T
        axes.fill_between(positions, low, high, color=colour, alpha=0.25, lw=0)
        # NaN ends the line where the median is not known from above.
        for edge in (low, np.where(np.isinf(medians[:, 1]), np.nan, high)):
            axes.plot(positions, edge, color=colour, lw=0.8, label=name if edge is low else None)
    if len(set(budgets)) == 1:
        axes.axhline(budget, color=COLOURS["date"], lw=0.6, ls=":")
    else:
        ends = positions - 0.5, positions + 0.5
        axes.hlines(budgets, *ends, color=COLOURS["date"], lw=0.6, ls=":")
    axes.set_yscale("log")
    axes.set_ylim(foot, top)
    axes.set_xlim(positions[0] - 0.5, positions[-1] + 0.5)
    axes.annotate(
        "later",
        (1, budgets[-1]),
        xytext=(3, 3),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        fontsize=7,
    )
    axes.set_xticks(positions, tick_labels)
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel(_words(axis))
    axes.set_ylabel("step (optimizer updates)")
    legend_above(axes, 2)
    return axes


def _draw_date(
    axes: Axes, x: float, pair: np.ndarray, limits: tuple[float, float], colour: str
) -> None:
    """A bar between the bounds of a date, or an arrow upwards where the upper one is open."""
    if np.isnan(pair).any():
        return
    lower, upper = np.clip(pair, *limits)
    later = np.isinf(pair[1])
    axes.plot([x, x], [lower, upper], "-", color=colour, lw=0.8 if later else 2.2, alpha=0.8)
    if later:
        axes.plot([x], [upper], "^", color=colour, ms=3.5, mew=0, clip_on=False)
    elif np.isinf(pair[0]):
        axes.plot([x], [lower], "v", color=colour, ms=3.5, mew=0, clip_on=False)


@styled
def phase_diagram(summary: xr.Dataset, across: str, up: str) -> Figure:
    """Draws the plane of two swept settings: on the left the verdict on most seeds, on the right
    the median date of generalising over all seeds.

    Where seeds disagree, a cell on the left says how many of them have the verdict that is shown.
    On the right, seeds that had not generalised by the last snapshot are part of the median: a cell
    is grey where it lies beyond the last snapshot, and says how many seeds generalised where some
    did not. Its colour is the geometric mean of the two bounds of the median. A setting whose run
    failed is an empty cell on both sides. The title states the accuracy, the gap and the budget.

    Args:
        summary: verdict (one of ``dynamics.VERDICTS``), dims (across, up, seed), and generalised in
            steps, dims (across, up, seed, bound). Its attributes ``level`` (accuracy), ``gap``,
            ``gap_unit`` ("ratio" or "steps") and the budget stand in the title: the variable
            budget, dims (across, up), or the attribute ``steps``.
        across: the name of the setting on the horizontal axis.
        up: the name of the setting on the vertical axis.

    Returns:
        The Figure.
    """
    figure = Figure(figsize=(WIDE, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    verdicts = summary["verdict"].transpose(up, across, "seed").values
    _draw_verdicts(left, verdicts)
    _draw_dates(figure, right, summary["generalised"].transpose(up, across, "seed", "bound"))
    for axes in (left, right):
        for name, set_ticks, set_label in (
            (across, axes.set_xticks, axes.set_xlabel),
            (up, axes.set_yticks, axes.set_ylabel),
        ):
            positions, tick_labels = _ticks(summary[name].values)
            set_ticks(positions + 0.5, tick_labels)
            set_label(_words(name))
    level, gap, unit = (summary.attrs[name] for name in ("level", "gap", "gap_unit"))
    distance = f"gap {gap:,g} steps" if unit == "steps" else f"gap a factor of {gap:g}"
    budgets, seeds = _budgets(summary, up, across), verdicts.shape[-1]
    budget = " to ".join(f"{steps:,}" for steps in sorted({budgets.min(), budgets.max()}))
    title = f"accuracy {level:.0%}, {distance}, budget {budget} steps, {seeds} seeds"
    figure.suptitle(title, x=0.01, ha="left", fontsize=8)
    return figure


def _draw_verdicts(axes: Axes, verdicts: np.ndarray) -> None:
    """Draws the verdict on most seeds in each cell; ``verdicts`` is of shape (up, across, seed)."""
    counts = np.stack([(verdicts == name).sum(axis=-1) for name in VERDICTS])
    most, seeds = counts.argmax(axis=0), verdicts.shape[-1]
    colours = ListedColormap([_VERDICT_COLOURS[name] for name in VERDICTS])
    known = counts.max(axis=0) > 0
    cells = np.ma.masked_array(most, ~known)
    last = len(VERDICTS) - 0.5
    axes.pcolormesh(cells, cmap=colours, vmin=-0.5, vmax=last, edgecolors="white", lw=1)
    for cell in np.argwhere(known & (counts.max(axis=0) < seeds)):
        _count(axes, cell, f"{counts.max(axis=0)[tuple(cell)]}/{seeds}")
    shown = [VERDICTS[k] for k in np.unique(most[known])]
    axes.legend(
        handles=[Patch(color=_VERDICT_COLOURS[name], label=name) for name in shown],
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=2,
    )


def _draw_dates(figure: Figure, axes: Axes, dates: xr.DataArray) -> None:
    """Draws the median date of each cell; ``dates`` has the dims (up, across, seed, bound)."""
    rows, columns, seeds = dates.shape[:3]
    bounds = np.array([[_median(cell) for cell in row] for row in dates])
    # A median that is open below is drawn at its upper bound.
    lower = np.where(bounds[..., 0] > 0, bounds[..., 0], bounds[..., 1])
    medians = np.sqrt(np.maximum(lower, 1) * np.maximum(bounds[..., 1], 1))
    medians[np.isinf(medians)] = np.nan
    counts = np.isfinite(dates.values[..., 1]).sum(axis=-1)
    for cell in np.argwhere((counts > 0) & (counts < seeds)):
        _count(axes, cell, f"{counts[tuple(cell)]}/{seeds}")
    axes.set_xlim(0, columns)
    axes.set_ylim(0, rows)
    if np.isfinite(medians).any():
        low, high = float(np.nanmin(medians)), float(np.nanmax(medians))
        mesh = axes.pcolormesh(
            medians,
            cmap="viridis_r",
            norm=LogNorm(low, max(high, 1.01 * low)),
            edgecolors="white",
            lw=1,
        )
        bar = figure.colorbar(mesh, ax=axes, label="median step of generalising")
        bar.ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        bar.ax.yaxis.set_minor_formatter(ticker.NullFormatter())
        bar.ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    later = np.isinf(bounds[..., 1])
    cells = np.ma.masked_array(np.zeros(later.shape), ~later)
    axes.pcolormesh(cells, cmap=ListedColormap([_LATER]), edgecolors="white", lw=1)
    axes.set_title("grey: median later than the budget", loc="left")


def _budgets(summary: xr.Dataset, *dims: str) -> np.ndarray:
    """The steps of training at each setting, by the settings ``dims``."""
    shape = [summary.sizes[dim] for dim in dims]
    if "budget" not in summary:
        return np.full(shape, summary.attrs["steps"])
    return summary["budget"].transpose(*dims).values


def _median(dates: xr.DataArray) -> tuple[float, float]:
    """The bounds of the median date over seeds; NaN for a run that failed."""
    if np.isnan(dates.values).all():
        return np.nan, np.nan
    return date_interval(dates).middle


def _count(axes: Axes, cell: np.ndarray, text: str) -> None:
    """Writes a number of seeds into a cell, given as (row, column)."""
    i, j = cell
    outline = [withStroke(linewidth=1.5, foreground="white")]
    axes.annotate(
        text, (j + 0.5, i + 0.5), ha="center", va="center", fontsize=7, path_effects=outline
    )


def _ticks(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Positions and labels of a setting's values: equally spaced, in the order of the sweep."""
    if values.dtype.kind in "if":
        labels = [f"{value:g}" for value in values]
    else:
        labels = [str(value) for value in values]
    return np.arange(len(values), dtype=float), labels


def _words(name: str) -> str:
    """``optimizer.weight_decay`` as "weight decay"."""
    return name.split(".")[-1].replace("_", " ")
