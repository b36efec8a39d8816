"""Maps and spectra: what is where along the frequencies, and what neurons do."""

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

_TABLE = {"unembedding": r"$\|F W_L\|^2$", "embedding": r"$\|F W_E\|^2$"}


@styled
def frequency_map(
    dataset: xr.Dataset,
    *,
    seed: int,
    place: str = "unembedding",
    births: xr.DataArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The share of each Fourier frequency in a weight table over training: the mechanism being
    born.

    Each snapshot's column reaches from half-way to the snapshot before to half-way to the one
    after, on the log axis. Frequencies that are key at the end are labelled at the right.

    Args:
        births: steps, dims (seed, frequency): from when on a winner is ahead for good, marked by a
            triangle.
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
    axes.figure.colorbar(mesh, ax=axes, label=f"share of {_TABLE[place]}", pad=0.07, fraction=0.06)
    if births is not None:
        own = births.sel(seed=seed).dropna("frequency")
        for k, born in zip(own["frequency"].values, own.values, strict=True):
            axes.plot(born, k, marker=">", ms=4, color=COLOURS["birth"], mec="white", mew=0.5)
    _label_keys(axes, dataset, seed)
    return axes


def key_labels(dataset: xr.Dataset, seed: int) -> np.ndarray:
    """The key frequencies of a seed's last snapshot; none where more than half of all are key."""
    if "key_frequencies" not in dataset:
        return np.array([], int)
    final = dataset["key_frequencies"].sel(seed=seed).isel(step=-1)
    held = final["frequency"].values[final.values.astype(bool)]
    return held if len(held) <= len(final) // 2 else held[:0]


def _label_keys(axes: Axes, dataset: xr.Dataset, seed: int) -> None:
    placed, room = -np.inf, 0.05 * dataset.sizes["frequency"]
    for k in key_labels(dataset, seed):
        placed = max(float(k), placed + room)
        axes.annotate(
            str(k),
            (1.0, float(k)),
            (1.03, placed),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
            color=COLOURS["key"],
            annotation_clip=False,
        )


@styled
def spectra(dataset: xr.Dataset, *, seed: int, ax: Axes | None = None) -> Axes:
    """The Fourier power shares of embedding and unembedding at the last snapshot, one bar a
    frequency.
    """
    axes = ax if ax is not None else new_axes()
    last = dataset.sel(seed=seed).isel(step=-1)
    ks = last["frequency"].values
    for shift, place, label in (
        (-0.2, "embedding", "embedding $W_E$"),
        (0.2, "unembedding", "unembedding $W_L$"),
    ):
        axes.bar(
            ks + shift,
            last[f"fourier_power_{place}"].values,
            width=0.4,
            color=COLOURS[place],
            label=label,
        )
    axes.set_xlabel("frequency k")
    axes.set_ylabel("share of power")
    axes.set_xlim(0, ks[-1] + 1)
    legend_above(axes, 2)
    return axes


@styled
def neuron_clusters(dataset: xr.Dataset, *, seed: int, ax: Axes | None = None) -> Axes:
    """How many neurons each frequency explains to at least .85 at the last snapshot."""
    axes = ax if ax is not None else new_axes()
    sizes = dataset["cluster_sizes"].sel(seed=seed).isel(step=-1)
    axes.bar(sizes["frequency"], sizes, width=0.8, color=COLOURS["unembedding"])
    for k, size in zip(sizes["frequency"].values, sizes.values, strict=True):
        if size:
            axes.annotate(f"{k}", (k, size), ha="center", va="bottom", fontsize=7)
    unassigned = dataset.sizes["neuron"] - int(sizes.sum()) if "neuron" in dataset.sizes else None
    axes.set_xlabel("frequency k")
    axes.set_ylabel("neurons in the cluster")
    axes.set_title(
        f"{unassigned} neurons in none" if unassigned is not None else "", loc="right", fontsize=7
    )
    axes.set_xlim(0, int(sizes["frequency"].values[-1]) + 1)
    return axes


@styled
def neuron_flow(dataset: xr.Dataset, *, seed: int, ax: Axes | None = None) -> Axes:
    """Neurons flowing into clusters: final key frequencies each in a colour, all others together,
    the rest in none.
    """
    axes = ax if ax is not None else new_axes()
    sizes = dataset["cluster_sizes"].sel(seed=seed).transpose("frequency", "step")
    keys = key_labels(dataset, seed)
    own = [sizes.sel(frequency=k).values for k in keys]
    others = sizes.values.sum(axis=0) - (np.sum(own, axis=0) if own else 0)
    cycle = COLOURS["cycle"].split()
    colours = [cycle[i % len(cycle)] for i in range(len(keys))]
    labels = [f"k = {k}" for k in keys]
    axes.stackplot(
        sizes["step"].values,
        *own,
        others,
        labels=[*labels, "other k"],
        colors=[*colours, "#bbbbbb"],
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
    """A reading by frequency over training: the final key frequencies each in a colour, all others
    in grey.
    """
    axes = ax if ax is not None else new_axes()
    values = dataset[variable].sel(seed=seed).transpose("frequency", "step")
    keys, cycle = key_labels(dataset, seed), COLOURS["cycle"].split()
    for k in values["frequency"].values:
        if k not in keys:
            axes.plot(values["step"], values.sel(frequency=k), color="#bbbbbb", lw=0.6)
    for i, k in enumerate(keys):
        axes.plot(
            values["step"],
            values.sel(frequency=k),
            SEED_STYLES[0],
            color=cycle[i % len(cycle)],
            lw=1.2,
            label=f"k = {k}",
        )
    step_axis(axes, values["step"].values)
    axes.set_ylabel(with_units(label, values))
    if len(keys):
        legend_above(axes, 4)
    return axes
