"""What weights of a parity network know before its error does (arXiv 2207.08799), and how few
neurons answer (2303.11873).
"""

import xarray as xr
from matplotlib.figure import Figure

from mi_jax.plots.curves import Scale, curves
from mi_jax.plots.style import legend_above, step_axis, styled

_WEIGHTS = {
    "hidden_progress": "decodable: largest move of a weight",
    "weight_gap": "unembedding: weight gap",
}
# That of the test set is left out: while test accuracy is chance, any few neurons reach it.
_SPARSITY = {"effective_sparsity": "train: enough for the training accuracy"}


@styled
def hidden_progress_panels(dataset: xr.Dataset, *, scale: Scale = "log") -> Figure:
    """Accuracy above, what the first layer's weights say of it in the middle, below the neurons
    that answer alone, log axis.

    Args:
        dataset: with test_accuracy and hidden_progress; training accuracy, weight_gap,
            effective_sparsity where they are.
    """
    plans = [
        ({"train_accuracy": "train: train", "test_accuracy": "test: test"}, "accuracy"),
        (_WEIGHTS, "first-layer weights"),
        (_SPARSITY, "effective sparsity\n(neurons)"),
    ]
    if "effective_sparsity" not in dataset:
        plans.pop()
    figure = Figure(figsize=(3.8, 1.7 * len(plans) + 0.4), layout="constrained")
    for place, (axes, (labels, told)) in enumerate(
        zip(figure.subplots(len(plans), 1, sharex=True), plans, strict=True)
    ):
        curves(dataset, labels, ax=axes, scale=scale)
        axes.set_ylabel(told)
        if labels is _SPARSITY:
            axes.set_yscale("log")
        legend_above(axes, 2)
        step_axis(axes, dataset["step"].values, scale)
        if place < len(plans) - 1:
            axes.set_xlabel("")
    return figure
