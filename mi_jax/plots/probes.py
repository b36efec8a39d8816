"""Probes: what a linear probe can decode over training, and what the answers lose without it."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mi_jax.dynamics import probe_readings, readout_site
from mi_jax.plots.style import COLOURS, SEED_STYLES, WIDE, finish_panels, step_axis, styled


@styled
def decodable_and_used(dataset: xr.Dataset, *, site: str | None = None, columns: int = 4) -> Figure:
    """Draws one panel per concept: in blue the accuracy of its probe, paler that of the control
    task; in orange the effect of erasing the concept, with the range of random subspaces of the
    same rank as a band.

    Args:
        dataset: probe_accuracy, probe_accuracy_control, probe_effect, dims
            (seed, step, site, concept); probe_effect_null, dims (seed, step, site, concept, draw).
            Their names may have the suffixes that options add.
        site: where the probes read; by default the last site before the outputs.
        columns: of the grid of panels.

    Returns:
        The Figure.

    Example::

        probes = run.measure(["probe_accuracy", "probe_effect"])
        plots.decodable_and_used(probes, site="blocks.0.mlp.post")
    """
    readings = (
        probe_readings(dataset)
        .sel(site=site or readout_site(dataset))
        .transpose("seed", "step", "concept", ...)
    )
    concepts = [str(concept) for concept in readings["concept"].values]
    rows = -(-len(concepts) // columns)
    figure = Figure(figsize=(WIDE, 1.3 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, concept in zip(grid, concepts, strict=False):
        _draw_concept(axes, readings.sel(concept=concept))
        axes.set_title(concept, fontsize=7)
    finish_panels(figure, grid, len(concepts), columns)
    figure.supylabel("accuracy; total variation", fontsize=8)
    figure.legend(handles=_legend(), loc="outside upper left", ncols=4, frameon=False, fontsize=7)
    return figure


def _draw_concept(axes: Axes, readings: xr.Dataset) -> None:
    """Draws the readings of one concept at one site, dims (seed, step)."""
    steps, decoded, used = readings["step"].values, COLOURS["decodable"], COLOURS["used"]
    for row in range(readings.sizes["seed"]):
        style, values = SEED_STYLES[row % len(SEED_STYLES)], readings.isel(seed=row)
        axes.plot(steps, values["probe_accuracy"], ls=style, color=decoded, lw=1.1)
        axes.plot(
            steps, values["probe_accuracy_control"], ls=style, color=decoded, lw=0.7, alpha=0.45
        )
        axes.plot(steps, values["probe_effect"], ls=style, color=used, lw=1.1)
    null = readings["probe_effect_null"]
    low, high = null.min(("seed", "draw")), null.max(("seed", "draw"))
    axes.fill_between(steps, low, high, color=used, alpha=0.2, lw=0)
    step_axis(axes, steps)
    axes.set_xlabel("")
    # Panels are narrow: of five tick labels or more, every second one stays.
    ticks = list(axes.get_xticks())
    axes.set_xticks(ticks if len(ticks) < 5 else ticks[::2])
    axes.set_ylim(-0.03, 1.03)


def _legend() -> list[Line2D | Patch]:
    decoded, used = COLOURS["decodable"], COLOURS["used"]
    return [
        Line2D([], [], color=decoded, lw=1.1, label="decodable: probe accuracy"),
        Line2D([], [], color=decoded, lw=0.7, alpha=0.45, label="control task"),
        Line2D([], [], color=used, lw=1.1, label="used: answers move when erased"),
        Patch(color=used, alpha=0.2, lw=0, label="random subspaces"),
    ]


@styled
def probe_map(dataset: xr.Dataset) -> Figure:
    """Draws three maps of site and concept in the last snapshot, means over seeds: probe accuracy;
    accuracy minus that of the control task; effect of erasing the concept minus the largest effect
    of a random subspace. Negative differences are shown as 0.

    Args:
        dataset: probe_accuracy, probe_accuracy_control, probe_effect, dims
            (seed, step, site, concept); probe_effect_null, dims (seed, step, site, concept, draw).
            Their names may have the suffixes that options add.

    Returns:
        The Figure.
    """
    last = probe_readings(dataset).isel(step=-1).mean("seed")
    beyond = last["probe_effect"] - last["probe_effect_null"].max("draw")
    selective = last["probe_accuracy"] - last["probe_accuracy_control"]
    panels = (
        ("probe accuracy", last["probe_accuracy"]),
        ("beyond the control task", selective.clip(0)),
        ("used beyond random subspaces", beyond.clip(0)),
    )
    sites = [str(site).removeprefix("blocks.") for site in last["site"].values]
    concepts = last["concept"].values
    figure = Figure(figsize=(WIDE, 0.14 * len(sites) + 1.5), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        table = values.transpose("site", "concept").values
        axes.imshow(table, aspect="auto", cmap="viridis", vmin=0, vmax=1)
        axes.set_title(title, fontsize=8)
        axes.set_xticks(np.arange(len(concepts)), concepts, rotation=90, fontsize=6)
        axes.set_yticks(np.arange(len(sites)), sites, fontsize=6)
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.colorbar(figure.axes[0].images[0], ax=figure.axes, fraction=0.03)
    return figure
