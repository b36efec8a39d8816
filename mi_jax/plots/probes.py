"""Decodable against used: what probes read over training, and what the answers do without it."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mi_jax.dynamics import probe_readings, readout_site
from mi_jax.plots.style import COLOURS, SEED_STYLES, WIDE, step_axis, styled


@styled
def decodable_and_used(dataset: xr.Dataset, *, site: str | None = None, columns: int = 4) -> Figure:
    """A panel a concept: probe accuracy with its control task, and the effect of erasing it with
    that of random subspaces.

    Args:
        dataset: probe_accuracy, probe_accuracy_control, probe_effect, probe_effect_null, with
            whatever suffix their options add.
        site: where; by default the last site before the outputs.
    """
    at = (
        probe_readings(dataset)
        .sel(site=site or readout_site(dataset))
        .transpose("seed", "step", "concept", ...)
    )
    concepts = [str(concept) for concept in at["concept"].values]
    rows = -(-len(concepts) // columns)
    figure = Figure(figsize=(WIDE, 1.3 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, concept in zip(grid, concepts, strict=False):
        _panel(axes, at.sel(concept=concept))
        axes.set_title(concept, fontsize=7)
    for place, axes in enumerate(grid):
        (
            axes.set_axis_off()
            if place >= len(concepts)
            else axes.xaxis.set_tick_params(labelbottom=place + columns >= len(concepts))
        )
    figure.supxlabel("step (optimizer updates)", fontsize=8)
    figure.supylabel("accuracy; total variation", fontsize=8)
    figure.legend(handles=_legend(), loc="outside upper left", ncols=4, frameon=False, fontsize=7)
    return figure


def _panel(axes: Axes, one: xr.Dataset) -> None:
    steps, decoded, used = one["step"].values, COLOURS["decodable"], COLOURS["used"]
    for place in range(one.sizes["seed"]):
        style, row = SEED_STYLES[place % len(SEED_STYLES)], one.isel(seed=place)
        axes.plot(steps, row["probe_accuracy"], style, color=decoded, lw=1.1)
        axes.plot(steps, row["probe_accuracy_control"], style, color=decoded, lw=0.7, alpha=0.45)
        axes.plot(steps, row["probe_effect"], style, color=used, lw=1.1)
    null = one["probe_effect_null"]
    axes.fill_between(
        steps, null.min(("seed", "draw")), null.max(("seed", "draw")), color=used, alpha=0.2, lw=0
    )
    step_axis(axes, steps)
    axes.set_xlabel("")
    axes.set_xticks(
        [
            tick
            for place, tick in enumerate(axes.get_xticks())
            if place % 2 == 0 or len(axes.get_xticks()) < 5
        ]
    )
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
    """Where each concept is decodable, by how much more than in the control task, and where it is
    used, at the last step.
    """
    last = probe_readings(dataset).isel(step=-1).mean("seed")
    beyond = last["probe_effect"] - last["probe_effect_null"].max("draw")
    selective = last["probe_accuracy"] - last["probe_accuracy_control"]
    panels = (
        ("probe accuracy", last["probe_accuracy"]),
        ("beyond the control task", selective.clip(0)),
        ("used beyond random subspaces", beyond.clip(0)),
    )
    sites, concepts = last["site"].values, last["concept"].values
    figure = Figure(figsize=(WIDE, 0.14 * len(sites) + 1.5), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        axes.imshow(
            values.transpose("site", "concept").values,
            aspect="auto",
            cmap="viridis",
            vmin=0,
            vmax=1,
        )
        axes.set_title(title, fontsize=8)
        axes.set_xticks(np.arange(len(concepts)), concepts, rotation=90, fontsize=6)
        axes.set_yticks(
            np.arange(len(sites)), [str(site).removeprefix("blocks.") for site in sites], fontsize=6
        )
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.colorbar(figure.axes[0].images[0], ax=figure.axes, fraction=0.03)
    return figure
