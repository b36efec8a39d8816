"""Readings of heads, matrices, concepts: many lines a reading, the leading ones told apart."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from mi_jax.dynamics import readout_site
from mi_jax.plots.curves import Scale, band, finish_panels
from mi_jax.plots.style import COLOURS, WIDE, step_axis, styled, with_units

PARTS = frozenset({"site", "concept", "parameter", "mode", "layer", "head", "head_other", "slot"})
"""Dims by which a reading may be drawn here."""


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
    """A panel for each reading: the parts that are largest at the end in colour, all others grey,
    its null as a grey band.

    Of sites the last one before the outputs is drawn, of singular values the largest.

    Args:
        names: readings on dims of ``PARTS``, besides (seed, step). null: by name, of untrained
            networks, dims (draw, ...): the range over draws and parts. most: how many parts are
            told apart.
    """
    rows, held = -(-len(names) // columns), dict[str, str]()
    figure = Figure(figsize=(WIDE, 1.7 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    steps = dataset["step"].values
    for axes, name in zip(grid, names, strict=False):
        lines = _lines(_chosen(dataset[name], dataset).sel(seed=seed))
        leading = sorted(lines, key=lambda part: -_last(lines[part]))[:most]
        colours = _colours(leading, held)
        for part, values in lines.items():
            told = part in leading
            colour = colours.get(part, COLOURS["date"])
            axes.plot(
                steps, values, color=colour, lw=1.1 if told else 0.5, alpha=1 if told else 0.45, zorder=2 + told,
                label=part if told else None,
            )  # fmt: skip
        if name in null:
            band(axes, steps, _chosen(null[name], dataset), COLOURS["date"])
        step_axis(axes, steps, scale)
        axes.set_xlabel("")
        axes.set_title(with_units(name, dataset[name]), fontsize=7)
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        ordered = [handles[part] for part in leading]
        axes.legend(
            ordered,
            leading,
            frameon=False,
            fontsize=6,
            handlelength=1,
            labelspacing=0.2,
            loc="best",
        )
    finish_panels(figure, grid, len(names), columns)
    return figure


def _chosen(values: xr.DataArray, dataset: xr.Dataset) -> xr.DataArray:
    """At the last site before the outputs, and of singular values the largest."""
    if "site" in values.dims:
        values = values.sel(site=readout_site(dataset))
    return values.isel(mode=0) if "mode" in values.dims else values


def _lines(values: xr.DataArray) -> dict[str, np.ndarray]:
    """By part, in words, what it reads at every step; without parts that are nowhere finite."""
    dims = [str(dim) for dim in values.dims if dim != "step"]
    stacked = values.transpose(*dims, "step")
    found: dict[str, np.ndarray] = {}
    for place in np.ndindex(*(values.sizes[dim] for dim in dims)):
        part = ", ".join(
            _word(dim, values[dim].values[i]) for dim, i in zip(dims, place, strict=True)
        )
        if np.isfinite(stacked.values[place]).any():
            found[part] = stacked.values[place]
    return found


def _colours(leading: Sequence[str], held: dict[str, str]) -> dict[str, str]:
    """A colour for each part, the one that it had in another panel where no other part has it in
    this one.
    """
    palette, found = COLOURS["cycle"].split(), dict[str, str]()
    for part in sorted(leading, key=lambda part: part not in held):
        free = [colour for colour in palette if colour not in found.values()]
        fresh = [colour for colour in free if colour not in held.values()]
        found[part] = held[part] if held.get(part) in free else (fresh or free or palette)[0]
        held.setdefault(part, found[part])
    return found


def _word(dim: str, value: object) -> str:
    """``layer 0``, ``to head 3``, ``key``, ``embed.W_E``: numbers say what they count."""
    if isinstance(value, str):
        return value.removeprefix("blocks.")
    return f"{'to head' if dim == 'head_other' else dim} {value}"


def _last(values: np.ndarray) -> float:
    """The last finite value's size."""
    return float(np.abs(values[np.isfinite(values)][-1]))
