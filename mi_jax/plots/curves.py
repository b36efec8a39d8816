"""Curves over training: losses, accuracies, progress measures, norms, attention."""

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.dynamics import Dates, Interval, Phases, interval
from mi_jax.plots.style import (
    COLOURS,
    SEED_STYLES,
    WIDE,
    legend_above,
    new_axes,
    step_axis,
    styled,
    with_units,
)

Scale = Literal["log", "linear"]

PHASES = ("memorisation", "circuit formation", "clean-up")


@styled
def curves(
    dataset: xr.Dataset,
    labels: Mapping[str, str],
    *,
    null: xr.Dataset | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """One line a variable and seed; seeds are told apart by line style, variables by colour.

    Args:
        labels: by variable, "meaning: label"; the meaning picks the colour. Those that the dataset
            lacks are left out.
        null: draws of the same variables, dims (draw) or (seed, step, draw): their range is a band
            in the same colour.
    """
    axes = ax if ax is not None else new_axes()
    steps = dataset["step"].values
    for name, told in labels.items():
        if name not in dataset:
            continue
        meaning, label = told.split(": ", 1)
        values = dataset[name].transpose("seed", "step").values
        for place, row in enumerate(values):
            style = SEED_STYLES[place % len(SEED_STYLES)]
            first = label if place == 0 else None
            axes.plot(
                steps,
                row,
                style,
                color=COLOURS[meaning],
                lw=1.3 if len(values) == 1 else 0.9,
                alpha=0.85,
                label=first,
            )
        if null is not None and name in null:
            band(axes, steps, null[name], COLOURS[meaning])
    step_axis(axes, steps, scale)
    return axes


def band(axes: Axes, steps: np.ndarray, draws: xr.DataArray, colour: str) -> None:
    """The range of the null's draws: over all steps, or step by step."""
    over = [dim for dim in draws.dims if dim != "step"]
    low, high = draws.min(over), draws.max(over)
    where = draws["step"].values if "step" in draws.dims else steps[[0, -1]]
    low, high = (np.broadcast_to(edge.values, where.shape) for edge in (low, high))
    axes.fill_between(where, low, high, color=colour, alpha=0.18, lw=0)


def mark_dates(axes: Axes, dates: Dates | None) -> None:
    """Triangles along the top where seeds memorised and grokked."""
    if dates is None:
        return
    for when, colour in ((dates.memorised, COLOURS["train"]), (dates.grokked, COLOURS["test"])):
        for step in when.values[np.isfinite(when.values)]:
            axes.plot(
                [step],
                [1.0],
                marker="v",
                ms=4,
                color=colour,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )


def shade_phases(axes: Axes, phases: Phases | None) -> None:
    """The phases as grounds of three greys up to their median ends; a bar at the foot of each end
    is its interval over seeds.
    """
    if phases is None:
        return
    begin = axes.get_xlim()[0]
    for place, when in enumerate(
        (phases.memorisation_end, phases.circuit_formation_end, phases.cleanup_end)
    ):
        end = interval(when.values)
        if not np.isfinite(end.middle):
            return
        axes.axvspan(begin, end.middle, color=COLOURS[PHASES[place]], alpha=0.16, lw=0, zorder=0)
        _interval_bar(axes, end)
        begin = end.middle


def _interval_bar(axes: Axes, end: Interval) -> None:
    axes.plot(
        [end.low, end.high],
        [0.015, 0.015],
        color=COLOURS["date"],
        lw=2.5,
        transform=axes.get_xaxis_transform(),
        alpha=0.8,
    )


@styled
def loss_curves(
    dataset: xr.Dataset,
    *,
    dates: Dates | None = None,
    phases: Phases | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """Training and test loss on log axes, with phases shaded; triangles at the top are when each
    seed memorised and grokked.

    Where every step draws fresh examples, there is no training curve.
    """
    axes = curves(
        dataset, {"train_loss": "train: train", "test_loss": "test: test"}, ax=ax, scale=scale
    )
    axes.set_yscale("log")
    axes.set_ylabel(with_units("loss", dataset["test_loss"]))
    mark_dates(axes, dates)
    shade_phases(axes, phases)
    legend_above(axes, 2)
    return axes


@styled
def accuracy_curves(
    dataset: xr.Dataset,
    *,
    dates: Dates | None = None,
    phases: Phases | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """Training and test accuracy, dated and shaded as in ``loss_curves``."""
    axes = curves(
        dataset,
        {"train_accuracy": "train: train", "test_accuracy": "test: test"},
        ax=ax,
        scale=scale,
    )
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("accuracy")
    mark_dates(axes, dates)
    shade_phases(axes, phases)
    legend_above(axes, 2)
    return axes


@styled
def label_noise_curves(
    dataset: xr.Dataset, *, ax: Axes | None = None, scale: Scale = "log"
) -> Axes:
    """What becomes of wrong labels: accuracy on clean examples, on corrupted ones as labelled and
    as is right, and in test.
    """
    labels = {
        "clean_accuracy": "train: clean",
        "memorised_accuracy": "excluded: corrupted, as labelled",
        "corrected_accuracy": "restricted: corrupted, as is right",
        "test_accuracy": "test: test",
    }
    axes = curves(dataset, labels, ax=ax, scale=scale)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("accuracy")
    legend_above(axes, 2)
    return axes


@styled
def progress_curves(
    dataset: xr.Dataset,
    *,
    dates: Dates | None = None,
    phases: Phases | None = None,
    null: xr.Dataset | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """Restricted and excluded loss with test loss: the circuit forming under a test loss that
    doesn't show it yet.

    Args:
        null: the same measures with other frequencies in the place of the key ones.
    """
    labels = {
        "test_loss": "test: test loss",
        "restricted_loss": "restricted: restricted",
        "excluded_loss": "excluded: excluded",
    }
    axes = curves(dataset, labels, null=null, ax=ax, scale=scale)
    axes.set_yscale("log")
    axes.set_ylabel(with_units("loss", dataset["test_loss"]))
    mark_dates(axes, dates)
    shade_phases(axes, phases)
    legend_above(axes, 3)
    return axes


@styled
def gini_curves(
    dataset: xr.Dataset,
    *,
    null: xr.Dataset | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """How unevenly embedding and unembedding are spread over the frequencies; bands are untrained
    networks.
    """
    labels = {
        "gini_embedding": "embedding: embedding $W_E$",
        "gini_unembedding": "unembedding: unembedding $W_L$",
    }
    axes = curves(dataset, labels, null=null, ax=ax, scale=scale)
    axes.set_ylim(0, 1)
    axes.set_ylabel("Gini coefficient")
    legend_above(axes, 2)
    return axes


@styled
def reading_panels(
    dataset: xr.Dataset,
    names: Sequence[str],
    *,
    null: Mapping[str, xr.DataArray],
    columns: int = 3,
    scale: Scale = "log",
) -> Figure:
    """A small panel for each scalar reading, seeds by line style, with the range of its null's
    draws as a grey band.

    Readings that stay positive and span more than three decades have a log axis.
    """
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(WIDE, 1.45 * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, name in zip(grid, names, strict=False):
        values = dataset[name].transpose("seed", "step").values
        for place, row in enumerate(values):
            axes.plot(
                dataset["step"],
                row,
                SEED_STYLES[place % len(SEED_STYLES)],
                color=COLOURS["train"],
                lw=0.9,
            )
        if name in null:
            band(axes, dataset["step"].values, null[name], COLOURS["date"])
        positive = values[np.isfinite(values) & (values > 0)]
        if len(positive) and np.nanmin(values) >= 0 and positive.max() > 1e3 * positive.min():
            axes.set_yscale("log")
        step_axis(axes, dataset["step"].values, scale)
        axes.set_xlabel("")
        axes.set_title(_in_lines(with_units(name, dataset[name])), fontsize=7)
    finish_panels(figure, grid, len(names), columns)
    return figure


def _in_lines(title: str, most: int = 38) -> str:
    """A title that is too wide for a panel, in two lines, cut behind the underscore or blank
    nearest to its middle.
    """
    if len(title) <= most:
        return title
    cuts = [i + 1 for i, letter in enumerate(title) if letter in "_ "] or [len(title) // 2]
    cut = min(cuts, key=lambda i: abs(i - len(title) / 2))
    return f"{title[:cut].rstrip()}\n{title[cut:]}"


def finish_panels(figure: Figure, grid: np.ndarray, count: int, columns: int) -> None:
    """What a grid of panels over steps has at its foot: numbers under the last panel of each
    column, nothing where none is.
    """
    for axes in grid[max(count - columns, 0) : count]:
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes in grid[count:]:
        axes.set_axis_off()
    figure.supxlabel("step (optimizer updates)", fontsize=8)


@styled
def norm_curves(
    dataset: xr.Dataset, *, seed: int, ax: Axes | None = None, scale: Scale = "log"
) -> Axes:
    """The sum of squared weights of each array."""
    axes = ax if ax is not None else new_axes(width=4.4)
    by_parameter = (
        dataset["sum_squared_weights_by_parameter"].sel(seed=seed).transpose("parameter", "step")
    )
    colours = COLOURS["cycle"].split()
    for place, name in enumerate(by_parameter["parameter"].values):
        style, colour = (
            SEED_STYLES[place // len(colours) % len(SEED_STYLES)],
            colours[place % len(colours)],
        )
        axes.plot(
            by_parameter["step"],
            by_parameter[place],
            style,
            color=colour,
            lw=1.1,
            label=str(name).removeprefix("blocks."),
        )
    step_axis(axes, by_parameter["step"].values, scale)
    axes.set_yscale("log")
    axes.set_ylabel("sum of squared weights")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.4)
    return axes


@styled
def attention_curves(
    dataset: xr.Dataset, *, seed: int, ax: Axes | None = None, scale: Scale = "log"
) -> Axes:
    """How much each head's read position attends to each position: one colour a head, one line
    style a position.
    """
    axes = ax if ax is not None else new_axes()
    # Beside readings of heads in a row there are empty places.
    patterns = (
        dataset["attention_pattern"]
        .sel(seed=seed)
        .transpose("layer", "head", "key", "step")
        .dropna("head", how="all")
    )
    colours = list(COLOURS["cycle"].split())
    flat = [
        (layer, head)
        for layer in range(patterns.sizes["layer"])
        for head in range(patterns.sizes["head"])
    ]
    for place, (layer, head) in enumerate(flat):
        for key in range(patterns.sizes["key"]):
            label = f"L{layer}H{head}" if key == 0 else None
            style, colour = SEED_STYLES[key % len(SEED_STYLES)], colours[place % len(colours)]
            axes.plot(
                patterns["step"],
                patterns[layer, head, key],
                style,
                color=colour,
                lw=1.0,
                label=label,
            )
    step_axis(axes, patterns["step"].values, scale)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("attention")
    legend_above(axes, 4)
    return axes


@styled
def position_curves(
    dataset: xr.Dataset, *, seed: int, ax: Axes | None = None, scale: Scale = "log"
) -> Axes:
    """Test loss of each answer that is read, one colour a position of the input, the first read
    first.
    """
    axes = ax if ax is not None else new_axes()
    losses = dataset["test_loss_by_position"].sel(seed=seed).transpose("position", "step")
    read = [place for place, one in enumerate(losses.values) if np.isfinite(one).any()]
    for colour, place in zip(
        mpl.colormaps["viridis"](np.linspace(0, 0.9, len(read))), read, strict=True
    ):
        axes.plot(losses["step"], losses[place], color=colour, lw=1.2, label=f"position {place}")
    step_axis(axes, losses["step"].values, scale)
    axes.set_ylabel(with_units("test loss", losses))
    legend_above(axes, 3)
    return axes


@styled
def singular_value_curves(
    dataset: xr.Dataset,
    *,
    seed: int,
    place: str = "unembedding",
    most: int = 16,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """The largest singular values of W_L (or W_E) over training, the largest darkest."""
    axes = ax if ax is not None else new_axes()
    values = dataset[f"singular_values_{place}"].sel(seed=seed).transpose("mode", "step")[:most]
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(values)))
    for mode, colour in enumerate(shades):
        axes.plot(values["step"], values[mode], color=colour, lw=1.0)
    step_axis(axes, values["step"].values, scale)
    axes.set_ylabel(f"singular values of {'$W_L$' if place == 'unembedding' else '$W_E$'}")
    return axes


@styled
def aligned_seeds(
    dataset: xr.Dataset,
    dates: Dates,
    *,
    variable: str = "test_accuracy",
    label: str = "test accuracy",
    ax: Axes | None = None,
) -> Axes:
    """Every seed against its own time, step / step of grokking; seeds that never grok are drawn in
    grey.

    A seed that never groks has no time of its own: it is drawn on the latest of the others', or on
        its last step.
    """
    axes = ax if ax is not None else new_axes()
    grokked = dates.grokked.values
    latest = np.nanmax(grokked) if np.isfinite(grokked).any() else float(dataset["step"].values[-1])
    for place, seed in enumerate(dataset["seed"].values):
        never = not np.isfinite(grokked[place])
        times = dataset["step"].values / (latest if never else grokked[place])
        colour, style = (
            ("#999999", ":") if never else (COLOURS["test"], SEED_STYLES[place % len(SEED_STYLES)])
        )
        axes.plot(times, dataset[variable].sel(seed=seed), style, color=colour, lw=0.9, alpha=0.85)
    axes.axvline(1.0, color=COLOURS["date"], lw=0.8)
    axes.set_xscale("log")
    axes.set_xlim(1e-2, max(2.0, float(dataset["step"].values[-1] / latest)))
    axes.set_xlabel("step / step of grokking of the seed")
    axes.set_ylabel(label)
    return axes
