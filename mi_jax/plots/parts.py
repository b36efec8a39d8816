"""Readings of heads, matrices and concepts: many lines per reading, of which the largest are told
apart by colour.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.dynamics import readout_site
from mi_jax.plots.curves import band
from mi_jax.plots.style import COLOURS, WIDE, Scale, finish_panels, step_axis, styled, with_units

PARTS = frozenset({"site", "concept", "parameter", "mode", "layer", "head", "head_other", "slot"})
"""The dims, besides seed and step, that a reading drawn by ``part_panels`` may have."""


@styled
def part_panels(
    dataset: xr.Dataset,
    names: Sequence[str],
    *,
    seed: int,
    null: Mapping[str, xr.DataArray],
    columns: int = 2,
    most: int = 4,
    scale: Scale = "log",
) -> Figure:
    """Draws one panel per reading and one line per part (a head, a matrix, a concept): the parts
    that are largest at the end in colour, all others in grey, the null as a grey band.

    Only the last site before the outputs is drawn, and only the largest singular value.

    Args:
        dataset: holds the readings, dims (seed, step) and some of ``PARTS``.
        names: of the readings, in the order of the panels.
        seed: the label of the seed to draw.
        null: the readings of untrained networks by name, dims (draw, ...): the band is the range
            over draws and parts. A reading without an entry has no band.
        columns: of the grid of panels.
        most: how many parts have a colour and a place in the legend.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Figure.
    """
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(WIDE, 1.7 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    steps = dataset["step"].values
    colour_of: dict[str, str] = {}
    for axes, name in zip(grid, names, strict=False):
        lines = _lines(_selected(dataset[name], dataset).sel(seed=seed))
        leading = sorted(lines, key=lambda part: -_last(lines[part]))[:most]
        _draw_lines(axes, steps, lines, _assign_colours(leading, colour_of))
        if name in null:
            band(axes, steps, _selected(null[name], dataset), COLOURS["date"])
        step_axis(axes, steps, scale)
        axes.set_xlabel("")
        axes.set_title(with_units(name, dataset[name]), fontsize=7)
        _add_legend(axes, leading)
    finish_panels(figure, grid, len(names), columns)
    return figure


def _draw_lines(
    axes: Axes, steps: np.ndarray, lines: Mapping[str, np.ndarray], colours: Mapping[str, str]
) -> None:
    """Draws a line per part: thick where the part has a colour, thin and grey elsewhere."""
    for part, values in lines.items():
        if part in colours:
            axes.plot(steps, values, color=colours[part], lw=1.1, alpha=1, zorder=3, label=part)
        else:
            axes.plot(steps, values, color=COLOURS["date"], lw=0.5, alpha=0.45, zorder=2)


def _add_legend(axes: Axes, leading: list[str]) -> None:
    """Adds a legend of the leading parts, the largest first."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(
        [handles[part] for part in leading],
        leading,
        frameon=False,
        fontsize=6,
        handlelength=1,
        labelspacing=0.2,
        loc="best",
    )


def _selected(values: xr.DataArray, dataset: xr.Dataset) -> xr.DataArray:
    """Selects the last site before the outputs and the largest singular value, if there are
    such dims.
    """
    if "site" in values.dims:
        values = values.sel(site=readout_site(dataset))
    return values.isel(mode=0) if "mode" in values.dims else values


def _lines(values: xr.DataArray) -> dict[str, np.ndarray]:
    """The values over steps by part, the part in words; without parts that are finite nowhere."""
    dims = [str(dim) for dim in values.dims if dim != "step"]
    stacked = values.transpose(*dims, "step")
    lines: dict[str, np.ndarray] = {}
    for index in np.ndindex(*(values.sizes[dim] for dim in dims)):
        part = ", ".join(
            _word(dim, values[dim].values[i]) for dim, i in zip(dims, index, strict=True)
        )
        if np.isfinite(stacked.values[index]).any():
            lines[part] = stacked.values[index]
    return lines


def _assign_colours(leading: Sequence[str], colour_of: dict[str, str]) -> dict[str, str]:
    """Assigns the leading parts of a panel different colours, as far as there are any.

    A part keeps the colour that it has in another panel if that is free; a new part takes one
    that no other panel uses, if there is one.

    Args:
        leading: the parts of this panel.
        colour_of: the first colour of each part in all panels so far; new parts are added.
    """
    palette, colours = COLOURS["cycle"].split(), dict[str, str]()
    # Parts that have a colour come first, or a new part could take it.
    for part in sorted(leading, key=lambda part: part not in colour_of):
        free = [colour for colour in palette if colour not in colours.values()]
        unused = [colour for colour in free if colour not in colour_of.values()]
        if colour_of.get(part) in free:
            colours[part] = colour_of[part]
        else:
            colours[part] = (unused or free or palette)[0]
        colour_of.setdefault(part, colours[part])
    return colours


def _word(dim: str, value: object) -> str:
    """``layer 0``, ``to head 3``, ``key``, ``embed.W_E``: a number with the name of its dim."""
    if isinstance(value, str):
        return value.removeprefix("blocks.")
    return f"{'to head' if dim == 'head_other' else dim} {value}"


def _last(values: np.ndarray) -> float:
    """The size of the last finite value."""
    return float(np.abs(values[np.isfinite(values)][-1]))
