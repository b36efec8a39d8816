"""Singular modes, irreducible representations, and paths through weight space."""

from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_jax.plots.style import (
    COLOURS,
    SEED_STYLES,
    WIDE,
    Scale,
    legend_above,
    legend_beside,
    new_axes,
    step_axis,
    styled,
)

_OTHER = "#BBBBBB"
_WAVE = 0.5
"""Share of a mode that its frequency must exceed for the mode to have that frequency's colour."""


@styled
def mode_curves(
    lines: xr.Dataset, *, seed: int, ax: Axes | None = None, scale: Scale = "log"
) -> Axes:
    """Draws the singular values of a weight table over training, one line per mode followed from
    snapshot to snapshot.

    A mode has a frequency's colour if the frequency holds more than half of it at the end, and
    is grey otherwise. The dashed line is what the untrained table reaches: a mode is thin below
    it, thick above it. A triangle marks the snapshot by which its longest stretch above it has
    begun; "<" at the first snapshot where it had begun before.

    Args:
        lines: the followed modes, from ``across.mode_lines(run)``: mode_value, mode_alive, dims
            (seed, step, mode); mode_noise, dims (seed, step); mode_found, dims (seed, mode);
            mode_birth, dims (seed, mode, bound); with residues also mode_frequency,
            mode_frequency_share.
        seed: the label of the seed to draw.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.

    Example::

        axes = plots.mode_curves(mi_jax.across.mode_lines(run), seed=0)
    """
    axes = ax if ax is not None else new_axes(width=4.4)
    modes, steps = lines.sel(seed=seed), lines["step"].values
    colours, frequencies = COLOURS["cycle"].split(), _frequencies(modes)
    ks = list(dict.fromkeys(frequencies.values()))
    born = np.flatnonzero(modes["mode_found"].values).tolist()
    labelled: dict[int, Line2D] = {}
    # The last first, so that the leading modes lie on top.
    for m in range(modes.sizes["mode"] - 1, -1, -1):
        k = frequencies.get(m)
        index = ks.index(k) if k is not None else 0
        colour = _OTHER if k is None else colours[index % len(colours)]
        style = SEED_STYLES[index // len(colours) % len(SEED_STYLES)]
        values, alive = modes["mode_value"].values[:, m], modes["mode_alive"].values[:, m]
        axes.plot(steps, values, ls=style, color=colour, lw=0.4, alpha=0.5)
        label = f"k = {k}" if k is not None and k not in labelled else None
        above = np.where(alive, values, np.nan)
        (line,) = axes.plot(steps, above, ls=style, color=colour, lw=1.3, label=label)
        if k is not None:
            labelled.setdefault(k, line)
        if m in born:
            birth = max(float(modes["mode_birth"].sel(bound="upper").values[m]), steps[0])
            value, marker = values[np.searchsorted(steps, birth)], "<" if birth <= steps[0] else "^"
            axes.plot(
                birth,
                value,
                marker=marker,
                ms=3.5,
                color=colour,
                mec="white",
                mew=0.4,
                clip_on=False,
            )
    (untrained,) = axes.plot(
        steps, modes["mode_noise"], "--", color=COLOURS["date"], lw=0.8, label="untrained"
    )
    step_axis(axes, steps, scale)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("singular value")
    legend_beside(axes, handles=[*(labelled[k] for k in sorted(labelled)), untrained])
    return axes


def _frequencies(modes: xr.Dataset) -> dict[int, int]:
    """The frequency of each found mode of which one holds more than ``_WAVE``, by mode."""
    if "mode_frequency" not in modes:
        return {}
    shares, ks = modes["mode_frequency_share"].values, modes["mode_frequency"].values
    found = np.flatnonzero(modes["mode_found"].values).tolist()
    return {m: int(ks[m]) for m in found if float(shares[m]) > _WAVE}


@styled
def irrep_curves(
    dataset: xr.Dataset,
    *,
    variable: str = "logit_similarity",
    label: str = "logit similarity",
    null: xr.DataArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws a reading by irreducible representation (irrep) over training: one colour per irrep,
    one line style per seed. Irreps whose reading never exceeds .05 in size are grey.

    Args:
        dataset: holds the variable, dims (seed, step, irrep).
        variable: the reading to draw.
        label: of the vertical axis.
        null: the reading of untrained networks, dims (draw, irrep). The band is its range over
            draws and irreps.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.
    """
    axes = ax if ax is not None else new_axes(width=4.4)
    values = dataset[variable].transpose("seed", "irrep", "step")
    colours, used = COLOURS["cycle"].split(), 0
    for column, name in enumerate(values["irrep"].values):
        shown = bool((np.abs(values[:, column]) > 0.05).any())
        colour = colours[used % len(colours)] if shown else _OTHER
        used += shown
        for row in range(values.sizes["seed"]):
            axes.plot(
                values["step"],
                values[row, column],
                ls=SEED_STYLES[row % len(SEED_STYLES)],
                color=colour,
                lw=1.0,
                label=str(name) if shown and row == 0 else None,
                zorder=2 if shown else 1,
            )
    if null is not None:
        low, high = float(null.min()), float(null.max())
        axes.axhspan(low, high, color=_OTHER, alpha=0.4, lw=0, label="untrained")
    step_axis(axes, values["step"].values)
    axes.set_ylabel(label)
    legend_beside(axes)
    return axes


@styled
def path_panels(path: xr.Dataset, *, what: str = "weights") -> Figure:
    """Draws the path of training in two joint principal components of all seeds, beside random
    walks with the same step lengths, and the share of variance of each component.

    Colour is the position of the snapshot in training, from dark to light; line styles are seeds.

    Args:
        path: score, walk_score, dims (seed, step, mode); share, walk_share, dims (mode):
            ``across.weight_path(run)`` or ``across.function_path(run)``.
        what: the title of the path, "weights" or "functions".

    Returns:
        The Figure, of three panels.

    Example::

        plots.path_panels(mi_jax.across.weight_path(run))
    """
    figure = Figure(figsize=(WIDE, 2.6), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    for axes, prefix, title in ((panels[0], "", what), (panels[1], "walk_", "random walks")):
        _draw_path(axes, path[f"{prefix}score"], path[f"{prefix}share"])
        axes.set_title(title)
    components = np.arange(1, path.sizes["mode"] + 1)
    for name, colour, label in (
        ("share", COLOURS["unembedding"], what),
        ("walk_share", COLOURS["date"], "random walks"),
    ):
        panels[2].plot(components, path[name], "o-", ms=3, color=colour, label=label)
    panels[2].set_xticks(components)
    panels[2].set_xlabel("principal component")
    panels[2].set_ylabel("share of variance")
    legend_above(panels[2], 1)
    return figure


def _draw_path(axes: Axes, score: xr.DataArray, share: xr.DataArray) -> None:
    """Draws the first two components of every seed's path."""
    values: Any = score.transpose("seed", "step", "mode").values
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.95, values.shape[1]))
    for row, line in enumerate(values):
        style = SEED_STYLES[row % len(SEED_STYLES)]
        axes.plot(line[:, 0], line[:, 1], ls=style, color=_OTHER, lw=0.8, zorder=1)
        axes.scatter(line[:, 0], line[:, 1], c=shades, s=5, zorder=2)
    axes.set_xlabel(f"component 1 ({100 * float(share[0]):.0f} %)")
    axes.set_ylabel(f"component 2 ({100 * float(share[1]):.0f} %)")
