"""Figures of a sweep: dates against one setting, and the plane of two settings."""

import numpy as np
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mi_jax.dynamics.regimes import REGIMES
from mi_jax.plots.style import COLOURS, WIDE, legend_above, new_axes, styled

_REGIME_COLOURS = dict(zip(REGIMES, ("#009E73", "#E69F00", "#56B4E9", "#999999"), strict=True))


@styled
def dates_against(summary: xr.Dataset, axis: str, *, ax: Axes | None = None) -> Axes:
    """Draws the steps at which seeds memorised and grokked against one swept setting: a point per
    seed, lines through the medians, crosses above the budget for seeds that never did.

    Seeds that never did count as later than the budget in the medians, so that a setting at which
    few seeds get there does not look early. A median beyond the budget lies at the crosses.

    Args:
        summary: memorised and grokked, dims (axis, seed), in steps; NaN is never. Its attribute
            ``steps`` is the budget: the steps that were trained.
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
    budget = float(summary.attrs["steps"])
    for name, split in (("memorised", "train"), ("grokked", "test")):
        dates = summary[name].transpose(axis, "seed").values
        colour = COLOURS[split]
        never = np.isnan(dates)
        x = np.broadcast_to(positions[:, None], dates.shape)
        above = np.full(int(never.sum()), 1.25 * budget)
        axes.plot(x[~never], dates[~never], "o", ms=3.5, mew=0, color=colour, label=name)
        axes.plot(x[never], above, "x", ms=4, color=colour)
        medians = np.minimum(_medians(dates), 1.25 * budget)
        axes.plot(positions, medians, color=colour, lw=0.8)
    axes.axhline(budget, color=COLOURS["date"], lw=0.6, ls=":")
    axes.annotate(
        "never (x)",
        (1, 1.25 * budget),
        xycoords=axes.get_yaxis_transform(),
        ha="right",
        va="bottom",
        fontsize=7,
    )
    axes.set_yscale("log")
    axes.set_xticks(positions, tick_labels)
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel(_words(axis))
    axes.set_ylabel("step (optimizer updates)")
    legend_above(axes, 2)
    return axes


@styled
def phase_diagram(summary: xr.Dataset, across: str, up: str) -> Figure:
    """Draws the plane of two swept settings: on the left the regime that most seeds are in, on the
    right the median step of grokking over all seeds.

    Where seeds disagree, a cell on the left says how many of them are in the regime that is shown.
    Seeds that never grok count as later than the budget: a cell on the right is grey where the
    median lies beyond the budget, and says how many seeds grok where some do not. The title states
    the accuracy, the gap and the budget that define the regimes.

    Args:
        summary: regime (one of ``dynamics.regimes.REGIMES``) and grokked (steps; NaN is never),
            dims (across, up, seed). Its attributes ``level`` (accuracy), ``gap`` (steps) and
            ``steps`` (the budget) stand in the title.
        across: the name of the setting on the horizontal axis.
        up: the name of the setting on the vertical axis.

    Returns:
        The Figure.
    """
    figure = Figure(figsize=(WIDE, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    regimes = summary["regime"].transpose(up, across, "seed").values
    _draw_regimes(left, regimes)
    _draw_dates(figure, right, summary["grokked"].transpose(up, across, "seed").values)
    for axes in (left, right):
        for name, set_ticks, set_label in (
            (across, axes.set_xticks, axes.set_xlabel),
            (up, axes.set_yticks, axes.set_ylabel),
        ):
            positions, tick_labels = _ticks(summary[name].values)
            set_ticks(positions + 0.5, tick_labels)
            set_label(_words(name))
    level, gap, budget = (summary.attrs[name] for name in ("level", "gap", "steps"))
    seeds = regimes.shape[-1]
    title = f"accuracy {level:.0%}, gap {gap:,} steps, budget {budget:,} steps, {seeds} seeds"
    figure.suptitle(title, x=0.01, ha="left", fontsize=8)
    return figure


def _draw_regimes(axes: Axes, regimes: np.ndarray) -> None:
    """Draws the regime of most seeds in each cell; ``regimes`` is of shape (up, across, seed)."""
    counts = np.stack([(regimes == name).sum(axis=-1) for name in REGIMES])
    most, seeds = counts.argmax(axis=0), regimes.shape[-1]
    colours = ListedColormap([_REGIME_COLOURS[name] for name in REGIMES])
    axes.pcolormesh(
        most, cmap=colours, vmin=-0.5, vmax=len(REGIMES) - 0.5, edgecolors="white", lw=1
    )
    for i, j in np.argwhere(counts.max(axis=0) < seeds):
        axes.annotate(
            f"{counts[most[i, j], i, j]}/{seeds}",
            (j + 0.5, i + 0.5),
            ha="center",
            va="center",
            fontsize=7,
        )
    axes.legend(
        handles=[Patch(color=_REGIME_COLOURS[name], label=name) for name in REGIMES],
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=2,
    )


def _draw_dates(figure: Figure, axes: Axes, dates: np.ndarray) -> None:
    """Draws the median step of grokking in each cell; ``dates`` is of shape (up, across, seed)."""
    medians = _medians(dates)
    medians[np.isinf(medians)] = np.nan
    axes.set_facecolor("#eeeeee")
    counts, seeds = np.isfinite(dates).sum(axis=-1), dates.shape[-1]
    for i, j in np.argwhere((counts > 0) & (counts < seeds)):
        axes.annotate(
            f"{counts[i, j]}/{seeds}", (j + 0.5, i + 0.5), ha="center", va="center", fontsize=7
        )
    axes.set_xlim(0, dates.shape[1])
    axes.set_ylim(0, dates.shape[0])
    if np.isfinite(medians).any():
        low, high = max(float(np.nanmin(medians)), 1.0), float(np.nanmax(medians))
        mesh = axes.pcolormesh(
            medians,
            cmap="viridis_r",
            norm=LogNorm(low, max(high, 1.01 * low)),
            edgecolors="white",
            lw=1,
        )
        bar = figure.colorbar(mesh, ax=axes, label="median step of grokking")
        bar.ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        bar.ax.yaxis.set_minor_formatter(ticker.NullFormatter())
        bar.ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.set_title("grey: median not within the budget", loc="left")


def _medians(dates: np.ndarray) -> np.ndarray:
    """Medians over the last axis, the seeds, with NaN (never) as later than any step."""
    return np.median(np.where(np.isnan(dates), np.inf, dates), axis=-1)


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
