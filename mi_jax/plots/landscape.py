"""The loss landscape over training: the learning coefficient beside the loss, sharpness against
2 / eta, and the calibration of a sampler.
"""

from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mi_jax.plots.curves import band, curves
from mi_jax.plots.style import (
    COLOURS,
    SEED_STYLES,
    Scale,
    SeedStyle,
    legend_above,
    legend_beside,
    new_axes,
    step_axis,
    styled,
    with_units,
)

_BAD = ("diverged", "epsilon_too_large", "negative", "unmixed")
"""The flags of an estimate that is not to be trusted: see ``landscape.diagnostics``."""


@styled
def learning_coefficient_curves(
    dataset: xr.Dataset,
    *,
    name: str = "learning_coefficient",
    null: xr.DataArray | None = None,
    scale: Scale = "log",
) -> Figure:
    """Draws the loss above and the local learning coefficient below, over the same steps; bars are
    one standard error, hollow points are flagged.

    The loss is that of both splits or, if neither was read, the loss at the checkpoint from
    which the chains start.

    Args:
        dataset: NAME, NAME_se and the flags NAME_diverged, NAME_epsilon_too_large, NAME_negative,
            NAME_unmixed; train_loss and test_loss, or else NAME_baseline_loss. Dims (seed, step).
        name: of the reading; with other options than the defaults it has a suffix.
        null: the same reading of untrained networks, dims (draw): its range is a grey band.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Figure.

    Example::

        dataset = run.measure(["learning_coefficient", "train_loss", "test_loss"])
        plots.learning_coefficient_curves(dataset)
    """
    figure = Figure(figsize=(3.8, 3.9), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.3))
    losses = {"train_loss": "train: train", "test_loss": "test: test"}
    if not set(losses) & set(dataset):
        losses = {f"{name}_baseline_loss": "train: the sampled loss"}
    curves(dataset, losses, ax=above, scale=scale)
    labels = [with_units("loss", dataset[loss]) for loss in losses if loss in dataset]
    above.set(yscale="log", ylabel=labels[0] if labels else "loss", xlabel="")
    legend_above(above, 2)
    steps = dataset["step"].values
    for row, seed in enumerate(dataset["seed"].values):
        _draw_estimates(below, dataset.sel(seed=seed), name, SEED_STYLES[row % len(SEED_STYLES)])
    if null is not None:
        band(below, steps, null, COLOURS["date"])
    below.axhline(0, color=COLOURS["date"], lw=0.6)
    step_axis(below, steps, scale)
    below.set_ylabel(r"learning coefficient $\hat\lambda$")
    return figure


def _draw_estimates(axes: Axes, dataset: xr.Dataset, name: str, style: SeedStyle) -> None:
    """Draws the estimates of one seed with their standard errors; flagged ones are hollow."""
    steps, values = dataset["step"].values, dataset[name].values
    errors = dataset[f"{name}_se"].values
    bad = _flagged(dataset, (f"{name}_{flag}" for flag in _BAD))
    colour = COLOURS["train"]
    axes.plot(steps, values, ls=style, color=colour, lw=0.9, alpha=0.7)
    axes.vlines(steps, values - errors, values + errors, color=colour, lw=0.6, alpha=0.6)
    axes.plot(steps[~bad], values[~bad], "o", ms=2.2, color=colour)
    axes.plot(steps[bad], values[bad], "o", ms=2.4, mfc="white", mec=colour, mew=0.6)


def _flagged(dataset: xr.Dataset, names: Iterable[str]) -> np.ndarray:
    """If at least one of the named flags, each of one dim, is set."""
    return np.any([dataset[name].values.astype(bool) for name in names], axis=0)


@styled
def sharpness_curves(
    dataset: xr.Dataset,
    *,
    threshold: float | None = None,
    null: xr.DataArray | None = None,
    ax: Axes | None = None,
    scale: Scale = "log",
) -> Axes:
    """Draws the largest eigenvalue of the Hessian of the training loss over training.

    The vertical axis is logarithmic if all values are positive.

    Args:
        dataset: sharpness, dims (seed, step).
        threshold: 2 / eta, above which gradient descent with learning rate eta diverges on a
            quadratic: a dashed line.
        null: the sharpness of untrained networks, dims (draw): its range is a grey band.
        ax: the Axes to draw on; new ones by default.
        scale: of the step axis, "log" or "linear".

    Returns:
        The Axes.
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
    """Draws the estimated learning coefficient against the step size of the sampler, one line per
    n_beta; hollow points are flagged, points on the plateau are ringed.

    Args:
        sweep: learning_coefficient, standard_error, plateau and the flags diverged,
            epsilon_too_large, negative, unmixed; dims (epsilon, n_beta). ``landscape.calibrate``
            returns it.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.
    """
    axes = ax if ax is not None else new_axes(width=4.6, height=2.8)
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, sweep.sizes["n_beta"]))
    for colour, n_beta in zip(shades, sweep["n_beta"].values, strict=True):
        row = sweep.sel(n_beta=n_beta)
        epsilon, values = row["epsilon"], row["learning_coefficient"].values
        errors, label = row["standard_error"], f"{n_beta:.3g}"
        axes.errorbar(epsilon, values, errors, color=colour, lw=1.0, label=label)
        bad, plateau = _flagged(row, _BAD), row["plateau"].values
        axes.plot(epsilon[~bad], values[~bad], "o", ms=3, color=colour)
        axes.plot(epsilon[bad], values[bad], "o", ms=3, mfc="white", mec=colour)
        axes.plot(
            epsilon[plateau],
            values[plateau],
            "o",
            ms=7,
            mfc="none",
            mec=COLOURS["key"],
            mew=0.8,
        )
    # Estimates that diverge would set the scale of all others.
    usable = sweep["learning_coefficient"].where(~sweep["epsilon_too_large"] & ~sweep["negative"])
    if np.isfinite(usable).any():
        axes.set_ylim(0, 1.5 * float(usable.max()))
    axes.set_xscale("log")
    axes.set_xlabel(r"step size $\epsilon$")
    axes.set_ylabel(r"learning coefficient $\hat\lambda$")
    legend_beside(axes, title=r"$n\beta$")
    return axes
