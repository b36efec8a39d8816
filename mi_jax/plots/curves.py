"""Curves over training: losses, accuracies, progress measures."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from mi_jax.dynamics import Transitions
from mi_jax.plots.style import COLOURS, SEED_STYLES, legend_above, new_axes, step_axis, styled


@styled
def curves(
    dataset: xr.Dataset, labels: Mapping[str, str], *, ax: Axes | None = None, scale: Literal["log", "linear"] = "log"
) -> Axes:
    """One line a variable and seed: thin lines for the seeds, a strong one for their median where there are several.

    Args:
        labels: by variable, "meaning: label"; the meaning picks the colour.
    """
    axes = ax if ax is not None else new_axes()
    steps = dataset["step"].values
    for name, told in labels.items():
        meaning, label = told.split(": ", 1)
        values = dataset[name].transpose("seed", "step").values
        several = len(values) > 1
        for place, row in enumerate(values):
            style = SEED_STYLES[place % len(SEED_STYLES)] if several else "-"
            axes.plot(
                steps,
                row,
                style,
                color=COLOURS[meaning],
                lw=0.9 if several else 1.3,
                alpha=0.85,
                label=label if place == 0 else None,
            )
    step_axis(axes, steps, scale)
    return axes


def mark_dates(axes: Axes, dates: Transitions | None) -> None:
    """Ticks along the top where seeds memorised and grokked."""
    if dates is None:
        return
    for when, colour in ((dates.memorised, COLOURS["train"]), (dates.grokked, COLOURS["test"])):
        for step in when.values[np.isfinite(when.values)]:
            axes.plot([step], [1.0], marker="v", ms=4, color=colour, transform=axes.get_xaxis_transform(), clip_on=False)


@styled
def loss_curves(
    dataset: xr.Dataset, *, dates: Transitions | None = None, ax: Axes | None = None, scale: Literal["log", "linear"] = "log"
) -> Axes:
    """Training and test loss on log axes; triangles at the top are the steps at which each seed memorised and grokked."""
    axes = curves(dataset, {"train_loss": "train: train", "test_loss": "test: test"}, ax=ax, scale=scale)
    axes.set_yscale("log")
    axes.set_ylabel("loss (nats)")
    mark_dates(axes, dates)
    legend_above(axes, 2)
    return axes


@styled
def accuracy_curves(
    dataset: xr.Dataset, *, dates: Transitions | None = None, ax: Axes | None = None, scale: Literal["log", "linear"] = "log"
) -> Axes:
    """Training and test accuracy, dated as in ``loss_curves``."""
    axes = curves(dataset, {"train_accuracy": "train: train", "test_accuracy": "test: test"}, ax=ax, scale=scale)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("accuracy")
    mark_dates(axes, dates)
    legend_above(axes, 2)
    return axes


@styled
def progress_curves(
    dataset: xr.Dataset, *, dates: Transitions | None = None, ax: Axes | None = None, scale: Literal["log", "linear"] = "log"
) -> Axes:
    """Restricted and excluded loss with test loss: the circuit forming under a test loss that doesn't show it yet."""
    labels = {
        "test_loss": "test: test loss",
        "restricted_loss": "restricted: restricted",
        "excluded_loss": "excluded: excluded",
    }
    axes = curves(dataset, labels, ax=ax, scale=scale)
    axes.set_yscale("log")
    axes.set_ylabel("loss (nats)")
    mark_dates(axes, dates)
    legend_above(axes, 3)
    return axes
