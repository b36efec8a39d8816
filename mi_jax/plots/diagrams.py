"""What a sweep shows: dates against one setting, and the plane of two."""

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
    """The steps at which seeds memorised and grokked, against the one swept setting; what never
    came about stands on top.

    Args:
        summary: with memorised and grokked, dims (axis, seed).
        axis: the name of the setting.
    """
    axes = ax if ax is not None else new_axes()
    places, labels = _places(summary[axis].values)
    budget = float(summary.attrs["steps"])
    for name, split in (("memorised", "train"), ("grokked", "test")):
        dates = summary[name].transpose(axis, "seed").values
        never = np.isnan(dates)
        x = np.broadcast_to(places[:, None], dates.shape)
        axes.plot(x[~never], dates[~never], "o", ms=3.5, mew=0, color=COLOURS[split], label=name)
        axes.plot(
            x[never], np.full(int(never.sum()), 1.25 * budget), "x", ms=4, color=COLOURS[split]
        )
        middle = [float(np.nanmedian(row)) if (~np.isnan(row)).any() else np.nan for row in dates]
        axes.plot(places, middle, color=COLOURS[split], lw=0.8)
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
    axes.set_xticks(places, labels)
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel(_words(axis))
    axes.set_ylabel("step (optimizer updates)")
    legend_above(axes, 2)
    return axes


@styled
def phase_diagram(summary: xr.Dataset, across: str, up: str) -> Figure:
    """The plane of two settings: which regime most seeds are in, and the median step at which they
    grok.

    Where seeds disagree the cell says how many are in the regime that is shown. Gap and budget
    stand in the title.

    Args:
        summary: with regime and grokked, dims (across, up, seed).
        across, up: the names of the settings.
    """
    figure = Figure(figsize=(WIDE, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    kinds = summary["regime"].transpose(up, across, "seed").values
    counts = np.stack([(kinds == name).sum(axis=-1) for name in REGIMES])
    most, seeds = counts.argmax(axis=0), kinds.shape[-1]
    colours = ListedColormap([_REGIME_COLOURS[name] for name in REGIMES])
    left.pcolormesh(
        most, cmap=colours, vmin=-0.5, vmax=len(REGIMES) - 0.5, edgecolors="white", lw=1
    )
    for i, j in np.argwhere(counts.max(axis=0) < seeds):
        left.annotate(
            f"{counts[most[i, j], i, j]}/{seeds}",
            (j + 0.5, i + 0.5),
            ha="center",
            va="center",
            fontsize=7,
        )
    left.legend(
        handles=[Patch(color=_REGIME_COLOURS[name], label=name) for name in REGIMES],
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=2,
    )
    dates = summary["grokked"].transpose(up, across, "seed").values
    some = np.any(~np.isnan(dates), axis=-1)
    middle = np.where(some, np.nanmedian(np.where(some[..., None], dates, 0.0), axis=-1), np.nan)
    right.set_facecolor("#eeeeee")
    if some.any():
        low, high = max(float(np.nanmin(middle)), 1.0), float(np.nanmax(middle))
        mesh = right.pcolormesh(
            middle,
            cmap="viridis_r",
            norm=LogNorm(low, max(high, 1.01 * low)),
            edgecolors="white",
            lw=1,
        )
        bar = figure.colorbar(mesh, ax=right, label="median step of grokking")
        bar.ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        bar.ax.yaxis.set_minor_formatter(ticker.NullFormatter())
        bar.ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    right.set_title("grey: no seed within the budget", loc="left")
    for axes in (left, right):
        for name, set_ticks, set_label in (
            (across, axes.set_xticks, axes.set_xlabel),
            (up, axes.set_yticks, axes.set_ylabel),
        ):
            places, labels = _places(summary[name].values)
            set_ticks(places + 0.5, labels)
            set_label(_words(name))
    level, gap, budget = (summary.attrs[name] for name in ("level", "gap", "steps"))
    told = f"accuracy {level:.0%}, gap {gap:,} steps, budget {budget:,} steps, {seeds} seeds"
    figure.suptitle(told, x=0.01, ha="left", fontsize=8)
    return figure


def _places(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Settings stand at equal distances, as they were asked for."""
    numbers = values.dtype.kind in "if"
    return np.arange(len(values), dtype=float), [
        f"{value:g}" if numbers else str(value) for value in values
    ]


def _words(name: str) -> str:
    """``optimizer.weight_decay`` as "weight decay"."""
    return name.split(".")[-1].replace("_", " ")
