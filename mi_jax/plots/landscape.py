"""The landscape over training: learning coefficient beside loss, sharpness against 2 / eta, and how
a sampler was calibrated.
"""

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.plots.curves import Scale, band, curves
from mi_jax.plots.style import (
    COLOURS,
    SEED_STYLES,
    legend_above,
    new_axes,
    step_axis,
    styled,
    with_units,
)

_BAD = ("diverged", "epsilon_too_large", "negative", "unmixed")


@styled
def learning_coefficient_curves(
    dataset: xr.Dataset,
    *,
    name: str = "learning_coefficient",
    null: xr.DataArray | None = None,
    scale: Scale = "log",
) -> Figure:
    """Loss above, learning coefficient below, over the same steps; bars are a standard error,
    hollow points are flagged.

    The losses of both splits, or, where neither was read, that of the checkpoints which the chains
    start at.

    Args:
        null: the same reading of untrained networks, dims (draw): its range is a grey band.
    """
    figure = Figure(figsize=(3.8, 3.9), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.3))
    losses = {"train_loss": "train: train", "test_loss": "test: test"}
    if not set(losses) & set(dataset):
        losses = {f"{name}_baseline_loss": "train: the loss that is sampled"}
    curves(dataset, losses, ax=above, scale=scale)
    units = [with_units("loss", dataset[name]) for name in losses if name in dataset]
    above.set(yscale="log", ylabel=units[0] if units else "loss", xlabel="")
    legend_above(above, 2)
    steps = dataset["step"].values
    for place, seed in enumerate(dataset["seed"].values):
        _estimates(below, dataset.sel(seed=seed), name, SEED_STYLES[place % len(SEED_STYLES)])
    if null is not None:
        band(below, steps, null, COLOURS["date"])
    below.axhline(0, color=COLOURS["date"], lw=0.6)
    step_axis(below, steps, scale)
    below.set_ylabel(r"learning coefficient $\hat\lambda$")
    return figure


def _estimates(axes: Axes, dataset: xr.Dataset, name: str, style: str) -> None:
    """One seed's estimates with their errors; those with a flag are hollow."""
    steps, values, errors = (
        dataset["step"].values,
        dataset[name].values,
        dataset[f"{name}_se"].values,
    )
    bad = np.zeros(len(steps), bool)
    for flag in _BAD:
        bad |= dataset[f"{name}_{flag}"].values.astype(bool)
    colour = COLOURS["train"]
    axes.plot(steps, values, style, color=colour, lw=0.9, alpha=0.7)
    axes.vlines(steps, values - errors, values + errors, color=colour, lw=0.6, alpha=0.6)
    axes.plot(steps[~bad], values[~bad], "o", ms=2.2, color=colour)
    axes.plot(steps[bad], values[bad], "o", ms=2.4, mfc="white", mec=colour, mew=0.6)


@styled
def sharpness_curves(
    dataset: xr.Dataset,
    *,
    threshold: float | None = None,
    null: xr.DataArray | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """The largest Hessian eigenvalue over training, with 2 / eta as a line.

    Args:
        threshold: 2 / eta, where gradient descent would diverge on a quadratic.
        null: the sharpness of untrained networks, dims (draw): its range is a grey band.
    """
    axes = curves(dataset, {"sharpness": "train: sharpness"}, ax=ax, scale=scale)
    if null is not None:
        band(axes, dataset["step"].values, null, COLOURS["date"])
    if threshold is not None:
        axes.axhline(threshold, color=COLOURS["key"], lw=1.0, ls="--", label=r"$2/\eta$")
    if np.nanmin(dataset["sharpness"].values) > 0:
        axes.set_yscale("log")
    axes.set_ylabel("largest Hessian eigenvalue")
    legend_above(axes, 2)
    return axes


@styled
def calibration_curves(sweep: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """The estimate against the step size, a line for each n_beta; hollow points are flagged, the
    plateau is ringed.
    """
    axes = ax if ax is not None else new_axes(width=4.6, height=2.8)
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, sweep.sizes["n_beta"]))
    for colour, n_beta in zip(shades, sweep["n_beta"].values, strict=True):
        row = sweep.sel(n_beta=n_beta)
        values, bad = row["learning_coefficient"].values, np.zeros(sweep.sizes["epsilon"], bool)
        for flag in _BAD:
            bad |= row[flag].values
        axes.errorbar(
            row["epsilon"],
            values,
            row["standard_error"],
            color=colour,
            lw=1.0,
            label=f"{n_beta:.3g}",
        )
        axes.plot(row["epsilon"][~bad], values[~bad], "o", ms=3, color=colour)
        axes.plot(row["epsilon"][bad], values[bad], "o", ms=3, mfc="white", mec=colour)
        ringed = row["plateau"].values
        axes.plot(
            row["epsilon"][ringed],
            values[ringed],
            "o",
            ms=7,
            mfc="none",
            mec=COLOURS["key"],
            mew=0.8,
        )
    usable = sweep["learning_coefficient"].where(~sweep["epsilon_too_large"] & ~sweep["negative"])
    if np.isfinite(usable).any():
        axes.set_ylim(0, 1.5 * float(usable.max()))
    axes.set_xscale("log")
    axes.set_xlabel(r"step size $\epsilon$")
    axes.set_ylabel(r"learning coefficient $\hat\lambda$")
    axes.legend(
        frameon=False,
        title=r"$n\beta$",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        handlelength=1.4,
    )
    return axes
