"""Marks of dates on the curves that they date: the two snapshots between which it happened."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from mi_jax.dynamics import date_interval
from mi_jax.plots.style import COLOURS, styled

PHASES = {
    "memorisation": "memorised",
    "circuit formation": "circuit_formation_end",
    "clean-up": "cleanup_end",
}
"""By phase, in their order, the date at which it ends; each is also the key of its colour."""

_SPLITS = {"memorised": "train", "generalised": "test"}
"""Colour of the ticks of each date."""
_HEIGHTS = {"memorised": 0.94, "generalised": 0.87}
"""Height of the notes on each date's seeds beyond the snapshots, as a share of the axes' height."""


@styled
def mark_dates(axes: Axes, dates: xr.Dataset) -> Axes:
    """Marks along the top the dates at which seeds memorised and generalised.

    A date is a bar between two ticks, the snapshots between which it happened. Dates beyond the
    last snapshot are counted at the right edge, dates before the first one at the left edge.

    Args:
        axes: to draw on, whose horizontal axis is the step.
        dates: ``memorised`` and ``generalised``, dims (seed, bound), in steps; of
            ``dynamics.grokking_dates``. One that it lacks is left out.

    Returns:
        The Axes.

    Example::

        axes = plots.curves(dataset, {"weight_gap": "unembedding: weight gap"})
        plots.mark_dates(axes, dynamics.grokking_dates(dataset))
    """
    # A fork's curves begin later than its history, in which it may be dated.
    begun = float(axes.dataLim.x0) if np.isfinite(axes.dataLim.x0) else float("-inf")
    for name, split in _SPLITS.items():
        if name not in dates:
            continue
        bounds = dates[name].transpose("seed", "bound").values
        closed = np.isfinite(bounds).all(axis=1) & (bounds[:, 1] > begun)
        for pair in bounds[closed]:
            axes.plot(
                np.maximum(pair, begun),
                [1.0, 1.0],
                "|-",
                ms=6,
                mew=0.9,
                lw=2.2,
                color=COLOURS[split],
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
        later = np.isposinf(bounds[:, 1])
        earlier = ~closed & ~later & ~np.isnan(bounds[:, 1])
        notes = (
            (1.0, int(later.sum()), "later \N{RIGHTWARDS ARROW}"),
            (0.0, int(earlier.sum()), "by then"),
        )
        for edge, count, words in notes:
            if count:
                axes.annotate(
                    f"{count} {words}",
                    (edge, _HEIGHTS[name]),
                    xytext=(3, 0),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    fontsize=7,
                    color=COLOURS[split],
                )
    return axes


@styled
def shade_phases(axes: Axes, dates: xr.Dataset) -> Axes:
    """Shades each phase up to the lower bound of its median end, over the seeds that have phases.

    The next phase begins at the upper bound, so that the median end lies in the strip between two
    shadings. Where the upper bound lies beyond the last snapshot, nothing right of it is shaded.
    A bar at the bottom is the interval of an end (``dynamics.date_interval``).

    Args:
        axes: to draw on; the first phase begins at their left limit.
        dates: ``memorised``, ``circuit_formation_end`` and ``cleanup_end``, dims (seed, bound), in
            steps; of ``dynamics.grokking_dates``. Without one of them nothing is shaded.

    Returns:
        The Axes.
    """
    if not set(PHASES.values()) <= set(dates):
        return axes
    left, right = axes.get_xlim()
    # Medians over different seeds could be out of order.
    has_phases = dates["circuit_formation_end"].notnull().all("bound").values
    if not has_phases.any():
        return axes
    begin = left
    for name, end in PHASES.items():
        over = date_interval(dates[end].isel(seed=has_phases))
        lower, upper = (float(np.clip(bound, left, right)) for bound in over.middle)
        if lower > begin:
            axes.axvspan(begin, lower, color=COLOURS[name], alpha=0.16, lw=0, zorder=0)
        if over.kind != "none":
            axes.plot(
                np.clip([over.low, over.high], left, right),
                [0.015, 0.015],
                color=COLOURS["date"],
                lw=2.5,
                transform=axes.get_xaxis_transform(),
                alpha=0.8,
            )
        begin = upper
    return axes
