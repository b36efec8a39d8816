"""Hidden progress of a parity network: its weights change before its error does (arXiv 2207.08799),
and few neurons come to answer alone (arXiv 2303.11873).
"""

import xarray as xr
from matplotlib.figure import Figure

from mi_jax.plots.curves import curves
from mi_jax.plots.style import Scale, legend_above, step_axis, styled

_ACCURACY = {"train_accuracy": "train: train", "test_accuracy": "test: test"}
_WEIGHTS = {
    "hidden_progress": "decodable: largest change of a weight",
    "weight_gap": "unembedding: weight gap",
}
# The effective sparsity of the test set is left out: while test accuracy is at chance, any few
# neurons reach it.
_SPARSITY = {"effective_sparsity": "train: enough for the training accuracy"}


@styled
def hidden_progress_panels(dataset: xr.Dataset, *, scale: Scale = "log") -> Figure:
    """Draws accuracy above, two readings of the first layer's weights in the middle and, if
    there is a training set, the number of neurons that reach its accuracy alone below.

    Args:
        dataset: test_accuracy and hidden_progress; train_accuracy, weight_gap and
            effective_sparsity if they were read. Dims (seed, step).
        scale: of the step axis, "log" or "linear".

    Returns:
        The Figure, of two panels or three.
    """
    panels = [(_ACCURACY, "accuracy"), (_WEIGHTS, "first-layer weights")]
    if "effective_sparsity" in dataset:
        panels.append((_SPARSITY, "effective sparsity\n(neurons)"))
    figure = Figure(figsize=(3.8, 1.7 * len(panels) + 0.4), layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True)
    for axes, (legend, label) in zip(grid, panels, strict=True):
        curves(dataset, legend, ax=axes, scale=scale)
        axes.set_ylabel(label)
        if legend is _SPARSITY:
            axes.set_yscale("log")
        legend_above(axes, 2)
        step_axis(axes, dataset["step"].values, scale)
        if axes is not grid[-1]:
            axes.set_xlabel("")
    return figure
