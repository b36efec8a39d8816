"""Modes, irreps and paths: what a network's weights are made of by now, one part a line."""

from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.plots.style import COLOURS, SEED_STYLES, WIDE, legend_above, new_axes, step_axis, styled

_OTHER = "#BBBBBB"
_WAVE = 0.5
"""Share of a mode that its frequency must hold for the mode to have its colour."""


@styled
def mode_curves(
    lines: xr.Dataset, *, seed: int, ax: Axes | None = None, scale: Literal["log", "linear"] = "log"
) -> Axes:
    """Singular modes of a table, one line a mode (see ``across.mode_lines``): coloured by frequency
    where one holds half of it.

    The dashed line is what the untrained table reaches; lines are thin where they are below it;
    triangles mark births.
    """
    axes = ax if ax is not None else new_axes(width=4.4)
    own, steps = lines.sel(seed=seed), lines["step"].values
    found, colours = np.flatnonzero(own["mode_found"].values).tolist(), COLOURS["cycle"].split()
    waves = {
        m: int(own["mode_frequency"].values[m])
        for m in found
        if "mode_frequency" in own and _is_wave(own, m)
    }
    ks = list(dict.fromkeys(waves.values()))
    named: dict[int, Line2D] = {}
    for m in range(own.sizes["mode"] - 1, -1, -1):
        k = waves.get(m)
        place = ks.index(k) if k is not None else 0
        colour = _OTHER if k is None else colours[place % len(colours)]
        style = SEED_STYLES[place // len(colours) % len(SEED_STYLES)]
        values, alive = own["mode_value"].values[:, m], own["mode_alive"].values[:, m]
        axes.plot(steps, values, style, color=colour, lw=0.4, alpha=0.5)
        label = f"k = {k}" if k is not None and k not in named else None
        (line,) = axes.plot(
            steps, np.where(alive, values, np.nan), style, color=colour, lw=1.3, label=label
        )
        if k is not None:
            named.setdefault(k, line)
        if m in found:
            born = float(own["mode_birth"].values[m])
            axes.plot(
                born,
                values[np.searchsorted(steps, born)],
                marker="^",
                ms=3.5,
                color=colour,
                mec="white",
                mew=0.4,
            )
    (untrained,) = axes.plot(
        steps, own["mode_noise"], "--", color=COLOURS["date"], lw=0.8, label="untrained"
    )
    step_axis(axes, steps, scale)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("singular value")
    handles = [*(named[k] for k in sorted(named)), untrained]
    axes.legend(
        handles=handles,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        handlelength=1.4,
    )
    return axes


def _is_wave(own: xr.Dataset, mode: int) -> bool:
    return float(own["mode_frequency_share"].values[mode]) > _WAVE


@styled
def irrep_curves(
    dataset: xr.Dataset,
    *,
    variable: str = "logit_similarity",
    label: str = "logit similarity",
    null: xr.DataArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A reading by irrep over training: one colour an irrep, one line style a seed; irreps that
    never pass .05 are grey.

    Args:
        null: the reading of untrained networks, dims (draw, irrep): the band is its range over all
            irreps.
    """
    axes = ax if ax is not None else new_axes(width=4.4)
    values = dataset[variable].transpose("seed", "irrep", "step")
    colours, used = COLOURS["cycle"].split(), 0
    for place, name in enumerate(values["irrep"].values):
        shown = bool((np.abs(values[:, place]) > 0.05).any())
        colour = colours[used % len(colours)] if shown else _OTHER
        used += shown
        for row in range(values.sizes["seed"]):
            style = SEED_STYLES[row % len(SEED_STYLES)]
            text = str(name) if shown and row == 0 else None
            axes.plot(
                values["step"],
                values[row, place],
                style,
                color=colour,
                lw=1.0,
                label=text,
                zorder=2 if shown else 1,
            )
    if null is not None:
        axes.axhspan(
            float(null.min()), float(null.max()), color=_OTHER, alpha=0.4, lw=0, label="untrained"
        )
    step_axis(axes, values["step"].values)
    axes.set_ylabel(label)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.4)
    return axes


@styled
def path_panels(path: xr.Dataset, *, what: str = "weights") -> Figure:
    """Joint principal components of all seeds beside those of random walks with the same step
    lengths, drawn alike.

    Colour is the snapshot's place in training, from dark to light; line styles are seeds.
    """
    figure = Figure(figsize=(WIDE, 2.6), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    for axes, name, title in ((panels[0], "", what), (panels[1], "walk_", "random walks")):
        _scores(axes, path[f"{name}score"], path[f"{name}share"])
        axes.set_title(title)
    modes = np.arange(1, path.sizes["mode"] + 1)
    for name, colour, label in (
        ("share", COLOURS["unembedding"], what),
        ("walk_share", COLOURS["date"], "random walks"),
    ):
        panels[2].plot(modes, path[name], "o-", ms=3, color=colour, label=label)
    panels[2].set_xticks(modes)
    panels[2].set_xlabel("principal component")
    panels[2].set_ylabel("share of variance")
    legend_above(panels[2], 1)
    return figure


def _scores(axes: Axes, score: xr.DataArray, share: xr.DataArray) -> None:
    values: Any = score.transpose("seed", "step", "mode").values
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.95, values.shape[1]))
    for row, line in enumerate(values):
        axes.plot(
            line[:, 0],
            line[:, 1],
            SEED_STYLES[row % len(SEED_STYLES)],
            color=_OTHER,
            lw=0.8,
            zorder=1,
        )
        axes.scatter(line[:, 0], line[:, 1], c=shades, s=5, zorder=2)
    axes.set_xlabel(f"component 1 ({100 * float(share[0]):.0f} %)")
    axes.set_ylabel(f"component 2 ({100 * float(share[1]):.0f} %)")
