"""Curves over training: losses, accuracies, progress measures, norms, attention."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.plots.dates import mark_dates, shade_phases
from mi_jax.plots.style import (
    COLOURS,
    SEED_STYLES,
    WIDE,
    Scale,
    finish_panels,
    legend_above,
    legend_beside,
    new_axes,
    step_axis,
    styled,
    with_units,
)

_LONGEST_LINE = 38
"""Characters that fit on one line of a small panel's title."""


@styled
def curves(
    dataset: xr.Dataset,
    legend: Mapping[str, str],
    *,
    null: xr.Dataset | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """Draws scalar readings over training, one line per variable and seed: the colour tells the
    variable, the line style the seed.

    Args:
        dataset: holds the variables, dims (seed, step).
        legend: for each variable "meaning: text". The meaning is a key of ``COLOURS`` and picks
            the colour; the text stands in the legend. Variables that the dataset lacks are left
            out.
        null: values of the same variables where there is nothing to find, dims (draw) or
            (seed, step, draw). Their range is a band in the variable's colour.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes, without a legend.

    Example::

        axes = plots.curves(dataset, {"weight_gap": "unembedding: weight gap"})
        axes.set_ylabel("weight gap")
        axes.legend()
    """
    axes = ax if ax is not None else new_axes()
    steps = dataset["step"].values
    for name, entry in legend.items():
        if name not in dataset:
            continue
        meaning, label = entry.split(": ", 1)
        values = dataset[name].transpose("seed", "step").values
        for row, line in enumerate(values):
            axes.plot(
                steps,
                line,
                ls=SEED_STYLES[row % len(SEED_STYLES)],
                color=COLOURS[meaning],
                lw=1.3 if len(values) == 1 else 0.9,
                alpha=0.85,
                label=label if row == 0 else None,
            )
        if null is not None and name in null:
            band(axes, steps, null[name], COLOURS[meaning])
    step_axis(axes, steps, scale)
    return axes


def band(axes: Axes, steps: np.ndarray, draws: xr.DataArray, colour: str) -> None:
    """Shades the range of a null's draws.

    Args:
        axes: to draw on.
        steps: of the curves that the band goes with, shape (step,).
        draws: the null. With a dim ``step`` the band follows its steps; without one it is constant
            from the first to the last of ``steps``. The range is over all other dims.
        colour: of the band.
    """
    over = [dim for dim in draws.dims if dim != "step"]
    low, high = draws.min(over), draws.max(over)
    where = draws["step"].values if "step" in draws.dims else steps[[0, -1]]
    low, high = (np.broadcast_to(edge.values, where.shape) for edge in (low, high))
    axes.fill_between(where, low, high, color=colour, alpha=0.18, lw=0)


@styled
def loss_curves(
    dataset: xr.Dataset,
    *,
    dates: xr.Dataset | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """Draws training and test loss over training, both axes logarithmic.

    Args:
        dataset: test_loss, and train_loss if there is a training set; dims (seed, step).
        dates: of ``dynamics.grokking_dates``; marks the dates of seeds and shades the phases. See
            ``plots.mark_dates`` and ``plots.shade_phases``.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.

    Example::

        dataset = mi_jax.open_run("runs/my_run").measures
        axes = plots.loss_curves(dataset, dates=dynamics.grokking_dates(dataset))
        axes.figure.savefig("loss.pdf")
    """
    legend = {"train_loss": "train: train", "test_loss": "test: test"}
    axes = curves(dataset, legend, ax=ax, scale=scale)
    axes.set_yscale("log")
    axes.set_ylabel(with_units("loss", dataset["test_loss"]))
    if dates is not None:
        mark_dates(axes, dates)
        shade_phases(axes, dates)
    legend_above(axes, 2)
    return axes


@styled
def accuracy_curves(
    dataset: xr.Dataset,
    *,
    dates: xr.Dataset | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """Draws training and test accuracy over training.

    Args:
        dataset: test_accuracy, and train_accuracy if there is a training set; dims
            (seed, step).
        dates: of ``dynamics.grokking_dates``; marks the dates of seeds and shades the phases. See
            ``plots.mark_dates`` and ``plots.shade_phases``.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.
    """
    legend = {"train_accuracy": "train: train", "test_accuracy": "test: test"}
    axes = curves(dataset, legend, ax=ax, scale=scale)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("accuracy")
    if dates is not None:
        mark_dates(axes, dates)
        shade_phases(axes, dates)
    legend_above(axes, 2)
    return axes


@styled
def label_noise_curves(
    dataset: xr.Dataset, *, ax: Axes | None = None, scale: Scale = "log"
) -> Axes:
    """Draws accuracy over training on a training set of which some labels are wrong: on clean
    examples, on mislabelled ones against the given and against the right label, and in test.

    Args:
        dataset: clean_accuracy, memorised_accuracy (given labels), corrected_accuracy (right
            labels), test_accuracy; dims (seed, step).
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.
    """
    legend = {
        "clean_accuracy": "train: clean",
        "memorised_accuracy": "excluded: mislabelled, given label",
        "corrected_accuracy": "restricted: mislabelled, right label",
        "test_accuracy": "test: test",
    }
    axes = curves(dataset, legend, ax=ax, scale=scale)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("accuracy")
    legend_above(axes, 2)
    return axes


@styled
def progress_curves(
    dataset: xr.Dataset,
    *,
    dates: xr.Dataset | None = None,
    null: xr.Dataset | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """Draws restricted and excluded loss (arXiv 2301.05217) beside the test loss, both axes
    logarithmic: they show the circuit forming while the test loss does not yet.

    Args:
        dataset: test_loss, and restricted_loss and excluded_loss if they were read; dims
            (seed, step).
        dates: of ``dynamics.grokking_dates``; marks the dates of seeds and shades the phases. See
            ``plots.mark_dates`` and ``plots.shade_phases``.
        null: the same measures with other frequencies in place of the key ones, dims
            (seed, step, draw): ``run.nulls().frequencies``. Their range is a band.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.

    Example::

        study = mi_jax.study(experiment)
        axes = plots.progress_curves(study.dataset, dates=study.dates)
    """
    legend = {
        "test_loss": "test: test loss",
        "restricted_loss": "restricted: restricted",
        "excluded_loss": "excluded: excluded",
    }
    axes = curves(dataset, legend, null=null, ax=ax, scale=scale)
    axes.set_yscale("log")
    axes.set_ylabel(with_units("loss", dataset["test_loss"]))
    if dates is not None:
        mark_dates(axes, dates)
        shade_phases(axes, dates)
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
    """Draws how unevenly embedding and unembedding are spread over the Fourier components: Gini
    coefficients, 0 for equal norms, towards 1 for a single component.

    Args:
        dataset: gini_embedding, gini_unembedding; dims (seed, step).
        null: the same of untrained networks, dims (draw): ``run.nulls().untrained``. Their range
            is a band.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.
    """
    legend = {
        "gini_embedding": "embedding: embedding $W_E$",
        "gini_unembedding": "unembedding: unembedding $W_L$",
    }
    axes = curves(dataset, legend, null=null, ax=ax, scale=scale)
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
    """Draws one small panel per scalar reading: seeds by line style, the range of its null's draws
    as a grey band.

    A reading that is never negative and spans more than three decades has a logarithmic axis.

    Args:
        dataset: holds the readings, dims (seed, step).
        names: of the readings, in the order of the panels.
        null: draws of the null by the reading's name, dims (draw) or (seed, step, draw). A reading
            without an entry has no band.
        columns: of the grid of panels.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Figure.

    Example::

        null = {str(name): draws for name, draws in run.nulls().untrained.items()}
        plots.reading_panels(dataset, ["gini_embedding", "test_loss"], null=null)
    """
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(WIDE, 1.45 * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, name in zip(grid, names, strict=False):
        values = dataset[name].transpose("seed", "step").values
        for row, line in enumerate(values):
            axes.plot(
                dataset["step"],
                line,
                ls=SEED_STYLES[row % len(SEED_STYLES)],
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


def _in_lines(title: str) -> str:
    """Breaks a title of more than ``_LONGEST_LINE`` characters into two lines, after the
    underscore or blank nearest to its middle.
    """
    if len(title) <= _LONGEST_LINE:
        return title
    cuts = [i + 1 for i, letter in enumerate(title) if letter in "_ "] or [len(title) // 2]
    cut = min(cuts, key=lambda i: abs(i - len(title) / 2))
    return f"{title[:cut].rstrip()}\n{title[cut:]}"


@styled
def norm_curves(
    dataset: xr.Dataset, *, seed: int, ax: Axes | None = None, scale: Scale = "log"
) -> Axes:
    """Draws the sum of squared weights of each array of parameters over training.

    Args:
        dataset: sum_squared_weights_by_parameter, dims (seed, step, parameter).
        seed: the label of the seed to draw.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.
    """
    axes = ax if ax is not None else new_axes(width=4.4)
    by_parameter = (
        dataset["sum_squared_weights_by_parameter"].sel(seed=seed).transpose("parameter", "step")
    )
    colours = COLOURS["cycle"].split()
    for row, name in enumerate(by_parameter["parameter"].values):
        axes.plot(
            by_parameter["step"],
            by_parameter[row],
            # The next line style once all colours are in use.
            ls=SEED_STYLES[row // len(colours) % len(SEED_STYLES)],
            color=colours[row % len(colours)],
            lw=1.1,
            label=str(name).removeprefix("blocks."),
        )
    step_axis(axes, by_parameter["step"].values, scale)
    axes.set_yscale("log")
    axes.set_ylabel("sum of squared weights")
    legend_beside(axes)
    return axes


@styled
def attention_curves(
    dataset: xr.Dataset, *, seed: int, ax: Axes | None = None, scale: Scale = "log"
) -> Axes:
    """Draws how much each head attends to each position from the position that is read: one
    colour per head, one line style per attended position.

    Args:
        dataset: attention_pattern, dims (seed, step, layer, head, key).
        seed: the label of the seed to draw.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.
    """
    axes = ax if ax is not None else new_axes()
    patterns = (
        dataset["attention_pattern"]
        .sel(seed=seed)
        .transpose("layer", "head", "key", "step")
        # Merged with a reading that numbers heads through all layers, ``head`` is longer than a
        # layer's heads, and the rest is NaN.
        .dropna("head", how="all")
    )
    colours = COLOURS["cycle"].split()
    heads = np.ndindex(patterns.sizes["layer"], patterns.sizes["head"])
    for index, (layer, head) in enumerate(heads):
        for key in range(patterns.sizes["key"]):
            axes.plot(
                patterns["step"],
                patterns[layer, head, key],
                ls=SEED_STYLES[key % len(SEED_STYLES)],
                color=colours[index % len(colours)],
                lw=1.0,
                label=f"L{layer}H{head}" if key == 0 else None,
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
    """Draws the test loss of each answer over training, one line per input position at which an
    answer is read, the first position darkest.

    Args:
        dataset: test_loss_by_position, dims (seed, step, position); NaN where no answer is read.
        seed: the label of the seed to draw.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.
    """
    axes = ax if ax is not None else new_axes()
    losses = dataset["test_loss_by_position"].sel(seed=seed).transpose("position", "step")
    read = [position for position, line in enumerate(losses.values) if np.isfinite(line).any()]
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(read)))
    for colour, position in zip(shades, read, strict=True):
        label = f"position {position}"
        axes.plot(losses["step"], losses[position], color=colour, lw=1.2, label=label)
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
    """Draws the largest singular values of a weight table over training, the largest darkest.

    Args:
        dataset: singular_values_unembedding (or singular_values_embedding), dims
            (seed, step, mode), in falling order.
        seed: the label of the seed to draw.
        place: which table: "unembedding" is W_L, "embedding" is W_E.
        most: how many singular values to draw.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.
    """
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
    dates: xr.Dataset,
    *,
    variable: str = "test_accuracy",
    label: str = "test accuracy",
    ax: Axes | None = None,
) -> Axes:
    """Draws a reading of every seed against its own time, step / step of generalising.

    The step of generalising is the upper bound of its date, the first snapshot at which the seed
    had generalised. A strip reaches back to the earliest lower bound, in the same unit. A seed that
    has not generalised is dotted and grey, and its steps are divided by the last step.

    Args:
        dataset: holds the variable, dims (seed, step).
        dates: holds ``generalised``, dims (seed, bound), in steps; ``dynamics.grokking_dates``.
        variable: the reading to draw.
        label: of the vertical axis.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.
    """
    axes = ax if ax is not None else new_axes()
    steps = dataset["step"].values
    last = float(steps[-1])
    bounds = dates["generalised"].sel(seed=dataset["seed"]).transpose("seed", "bound").values
    # A seed that had generalised by step 0 has no time of its own.
    dated = np.isfinite(bounds[:, 1]) & (bounds[:, 1] > 0)
    for row, seed in enumerate(dataset["seed"].values):
        style, colour = SEED_STYLES[row % len(SEED_STYLES)], COLOURS["test"]
        if not dated[row]:
            style, colour = ":", "#999999"
        unit = bounds[row, 1] if dated[row] else last
        axes.plot(
            steps / unit,
            dataset[variable].sel(seed=seed),
            ls=style,
            color=colour,
            lw=0.9,
            alpha=0.85,
        )
    closed = bounds[dated & np.isfinite(bounds[:, 0])]
    if len(closed):
        earliest = float((closed[:, 0] / closed[:, 1]).min())
        axes.axvspan(earliest, 1.0, color=COLOURS["date"], alpha=0.25, lw=0, zorder=0)
    axes.axvline(1.0, color=COLOURS["date"], lw=0.8)
    axes.set_xscale("log")
    axes.set_xlim(1e-2, max(2.0, last / float(bounds[dated, 1].min(initial=last))))
    axes.set_xlabel("step / step of generalising of the seed")
    axes.set_ylabel(label)
    return axes
