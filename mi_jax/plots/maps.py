"""Maps and spectra: what is where along the frequencies."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from mi_jax.plots.style import COLOURS, legend_above, new_axes, step_axis, styled


@styled
def frequency_map(dataset: xr.Dataset, *, seed: int, place: str = "unembedding", ax: Axes | None = None) -> Axes:
    """The share of each Fourier frequency in a weight table over training: the mechanism being born.

    Each snapshot's column reaches from half-way to the snapshot before to half-way to the one after, on the log axis.
    Frequencies that are key at the end are labelled at the right.
    """
    axes = ax if ax is not None else new_axes()
    shares = dataset[f"fourier_power_{place}"].sel(seed=seed).transpose("frequency", "step")
    steps, ks = shares["step"].values, shares["frequency"].values
    middles = np.expm1((np.log1p(steps[1:]) + np.log1p(steps[:-1])) / 2)
    edges = np.concatenate([[steps[0]], middles, [steps[-1]]])
    top = float(np.nanmax(shares.values)) if np.isfinite(shares.values).any() else 1.0
    mesh = axes.pcolormesh(
        edges, np.append(ks, ks[-1] + 1) - 0.5, shares.values, cmap="magma_r", vmin=0, vmax=top, rasterized=True
    )
    step_axis(axes, steps)
    axes.set_ylabel("frequency k")
    axes.figure.colorbar(mesh, ax=axes, label=f"share of {_TABLE[place]}", pad=0.07, fraction=0.06)
    _label_keys(axes, dataset, seed)
    return axes


_TABLE = {"unembedding": r"$\|F W_L\|^2$", "embedding": r"$\|F W_E\|^2$"}


def _label_keys(axes: Axes, dataset: xr.Dataset, seed: int) -> None:
    if "key_frequencies" not in dataset:
        return
    final = dataset["key_frequencies"].sel(seed=seed).isel(step=-1)
    held = final["frequency"].values[final.values.astype(bool)]
    if len(held) > len(final) // 2:
        return
    placed = -np.inf
    for k in held:
        placed = max(float(k), placed + 0.05 * len(final))
        axes.annotate(
            str(k),
            (1.0, k),
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
    """The Fourier power shares of embedding and unembedding at the last snapshot, one bar a frequency."""
    axes = ax if ax is not None else new_axes()
    last = dataset.sel(seed=seed).isel(step=-1)
    ks = last["frequency"].values
    for shift, place, label in ((-0.2, "embedding", "embedding $W_E$"), (0.2, "unembedding", "unembedding $W_L$")):
        axes.bar(ks + shift, last[f"fourier_power_{place}"].values, width=0.4, color=COLOURS[place], label=label)
    axes.set_xlabel("frequency k")
    axes.set_ylabel("share of power")
    axes.set_xlim(0, ks[-1] + 1)
    legend_above(axes, 2)
    return axes
