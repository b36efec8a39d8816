"""Fourier frequencies: their shares of the weights, what each is worth, and the neurons of each."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from mi_jax.plots.style import (
    COLOURS,
    SEED_STYLES,
    legend_above,
    new_axes,
    step_axis,
    styled,
    with_units,
)

_POWER = {"unembedding": r"$\|F W_L\|^2$", "embedding": r"$\|F W_E\|^2$"}
"""The power of a frequency in each table, in symbols."""


@styled
def frequency_map(
    dataset: xr.Dataset,
    *,
    seed: int,
    place: str = "unembedding",
    births: xr.DataArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws the share of each Fourier frequency in a weight table over training, as a map of step
    and frequency: the darker, the larger.

    The column of a snapshot reaches half-way to its neighbours in log(step + 1). Frequencies that
    are key in the last snapshot are labelled on the right.

    Args:
        dataset: fourier_power_unembedding (or fourier_power_embedding), dims
            (seed, step, frequency); key_frequencies if they were read.
        seed: the label of the seed to draw.
        place: which table: "unembedding" is W_L, "embedding" is W_E.
        births: the dates from which on a final key frequency always holds more than twice an even
            share (``dynamics.births``), dims (seed, frequency, bound). A triangle marks the
            snapshot by which it happened; "<" at the first snapshot where it had happened before.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Example::

        axes = plots.frequency_map(run.measures, seed=0)
    """
    axes = ax if ax is not None else new_axes()
    shares = dataset[f"fourier_power_{place}"].sel(seed=seed).transpose("frequency", "step")
    steps, ks = shares["step"].values, shares["frequency"].values
    middles = np.expm1((np.log1p(steps[1:]) + np.log1p(steps[:-1])) / 2)
    edges = np.concatenate([[steps[0]], middles, [steps[-1]]])
    top = float(np.nanmax(shares.values)) if np.isfinite(shares.values).any() else 1.0
    bounds = np.append(ks, ks[-1] + 1) - 0.5
    mesh = axes.pcolormesh(
        edges, bounds, shares.values, cmap="magma_r", vmin=0, vmax=top, rasterized=True
    )
    step_axis(axes, steps)
    axes.set_ylabel("frequency k")
    axes.figure.colorbar(mesh, ax=axes, label=f"share of {_POWER[place]}", pad=0.07, fraction=0.06)
    if births is not None:
        upper = births.sel(seed=seed, bound="upper")
        born = upper[np.isfinite(upper.values)]
        for k, step in zip(born["frequency"].values, born.values, strict=True):
            axes.plot(
                max(step, steps[0]),
                k,
                marker="<" if step <= steps[0] else ">",
                ms=4,
                color=COLOURS["birth"],
                mec="white",
                mew=0.5,
                clip_on=False,
            )
    _label_keys(axes, dataset, seed)
    return axes


def key_labels(dataset: xr.Dataset, seed: int) -> np.ndarray:
    """Key frequencies of the last snapshot of a seed, in rising order.

    Args:
        dataset: key_frequencies, bool, dims (seed, step, frequency).
        seed: the label of the seed.

    Returns:
        The frequencies, shape (key,). Empty without key_frequencies, and if more than half of
        all frequencies are key: they would distinguish nothing.
    """
    if "key_frequencies" not in dataset:
        return np.array([], int)
    final = dataset["key_frequencies"].sel(seed=seed).isel(step=-1)
    keys = final["frequency"].values[final.values.astype(bool)]
    return keys if len(keys) <= len(final) // 2 else keys[:0]


def _label_keys(axes: Axes, dataset: xr.Dataset, seed: int) -> None:
    """Labels the key frequencies on the right; labels that would overlap are moved up."""
    lowest, room = -np.inf, 0.05 * dataset.sizes["frequency"]
    for k in key_labels(dataset, seed):
        lowest = max(float(k), lowest + room)
        axes.annotate(
            str(k),
            (1.0, float(k)),
            (1.03, lowest),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
            color=COLOURS["key"],
            annotation_clip=False,
        )


@styled
def spectra(dataset: xr.Dataset, *, seed: int, ax: Axes | None = None) -> Axes:
    """Draws the Fourier power shares of embedding and unembedding in the last snapshot, a pair of
    bars per frequency.

    Args:
        dataset: fourier_power_embedding, fourier_power_unembedding, dims (seed, step, frequency).
        seed: the label of the seed to draw.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.
    """
    axes = ax if ax is not None else new_axes()
    last = dataset.sel(seed=seed).isel(step=-1)
    ks = last["frequency"].values
    for shift, place, label in (
        (-0.2, "embedding", "embedding $W_E$"),
        (0.2, "unembedding", "unembedding $W_L$"),
    ):
        shares = last[f"fourier_power_{place}"].values
        axes.bar(ks + shift, shares, width=0.4, color=COLOURS[place], label=label)
    axes.set_xlabel("frequency k")
    axes.set_ylabel("share of power")
    axes.set_xlim(0, ks[-1] + 1)
    legend_above(axes, 2)
    return axes


@styled
def neuron_clusters(dataset: xr.Dataset, *, seed: int, ax: Axes | None = None) -> Axes:
    """Draws how many neurons each frequency explains in the last snapshot: those of which it
    explains at least .85 of the variance.

    Args:
        dataset: cluster_sizes, dims (seed, step, frequency). If a variable has the dim
            ``neuron``, the title counts the neurons of no frequency.
        seed: the label of the seed to draw.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.
    """
    axes = ax if ax is not None else new_axes()
    sizes = dataset["cluster_sizes"].sel(seed=seed).isel(step=-1)
    axes.bar(sizes["frequency"], sizes, width=0.8, color=COLOURS["unembedding"])
    for k, size in zip(sizes["frequency"].values, sizes.values, strict=True):
        if size:
            axes.annotate(f"{k}", (k, size), ha="center", va="bottom", fontsize=7)
    axes.set_xlabel("frequency k")
    axes.set_ylabel("neurons in the cluster")
    if "neuron" in dataset.sizes:
        unassigned = dataset.sizes["neuron"] - int(sizes.sum())
        axes.set_title(f"{unassigned} neurons in no cluster", loc="right", fontsize=7)
    axes.set_xlim(0, int(sizes["frequency"].values[-1]) + 1)
    return axes


@styled
def neuron_flow(dataset: xr.Dataset, *, seed: int, ax: Axes | None = None) -> Axes:
    """Draws how many neurons each frequency explains over training, stacked: the final key
    frequencies each in a colour, all other frequencies together in grey.

    Args:
        dataset: cluster_sizes and key_frequencies, dims (seed, step, frequency). If a variable
            has the dim ``neuron``, the axis reaches to the number of neurons.
        seed: the label of the seed to draw.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.
    """
    axes = ax if ax is not None else new_axes()
    sizes = dataset["cluster_sizes"].sel(seed=seed).transpose("frequency", "step")
    keys = key_labels(dataset, seed)
    by_key = [sizes.sel(frequency=k).values for k in keys]
    others = sizes.values.sum(axis=0) - (np.sum(by_key, axis=0) if by_key else 0)
    cycle = COLOURS["cycle"].split()
    axes.stackplot(
        sizes["step"].values,
        *by_key,
        others,
        labels=[*(f"k = {k}" for k in keys), "other k"],
        colors=[*(cycle[i % len(cycle)] for i in range(len(keys))), "#bbbbbb"],
        lw=0,
    )
    if "neuron" in dataset.sizes:
        axes.set_ylim(0, dataset.sizes["neuron"])
    step_axis(axes, sizes["step"].values)
    axes.set_ylabel("neurons with a frequency")
    legend_above(axes, 4)
    return axes


@styled
def frequency_lines(
    dataset: xr.Dataset, variable: str, label: str, *, seed: int, ax: Axes | None = None
) -> Axes:
    """Draws a reading by frequency over training: the final key frequencies each in a colour, all
    others in grey.

    Args:
        dataset: holds the variable, dims (seed, step, frequency), and key_frequencies.
        variable: the reading to draw, such as "excluded_loss_by_frequency".
        label: of the vertical axis; units are added.
        seed: the label of the seed to draw.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.
    """
    axes = ax if ax is not None else new_axes()
    values = dataset[variable].sel(seed=seed).transpose("frequency", "step")
    steps, keys = values["step"], key_labels(dataset, seed)
    cycle = COLOURS["cycle"].split()
    for k in values["frequency"].values:
        if k not in keys:
            axes.plot(steps, values.sel(frequency=k), color="#bbbbbb", lw=0.6)
    for i, k in enumerate(keys):
        axes.plot(
            steps,
            values.sel(frequency=k),
            ls=SEED_STYLES[0],
            color=cycle[i % len(cycle)],
            lw=1.2,
            label=f"k = {k}",
        )
    step_axis(axes, steps.values)
    axes.set_ylabel(with_units(label, values))
    if len(keys):
        legend_above(axes, 4)
    return axes
