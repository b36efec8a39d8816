"""Neurons, attention heads and positions: which parts compute the answers."""

from mi_jax import plots
from mi_jax.report.catalogue.plan import KEYS, FigurePlan, seed_note
from mi_jax.report.inputs import ReportInputs


def clusters(inputs: ReportInputs) -> list[FigurePlan]:
    """Neurons of each frequency in the last snapshot."""
    dataset, seed = inputs.dataset, inputs.first_seed
    return [
        FigurePlan(
            "clusters",
            f"Neurons by frequency at the end (seed {seed})",
            "How many neurons each frequency explains: at least .85 of the neuron's variance, in"
            " the last snapshot.",
            "Counts of neurons by frequency.",
            {"cluster_sizes"},
            lambda: plots.neuron_clusters(dataset, seed=seed),
        )
    ]


def neuron_flow(inputs: ReportInputs) -> list[FigurePlan]:
    """Neurons of each frequency over training."""
    dataset, seed = inputs.dataset, inputs.first_seed
    return [
        FigurePlan(
            "neuron_flow",
            f"Neurons by frequency over training (seed {seed})",
            "How many neurons each frequency explains (at least .85 of the neuron's variance),"
            " stacked: the final key frequencies in colour, all others together in grey.",
            "Counts of neurons by frequency, stacked, against the step.",
            {"cluster_sizes"},
            lambda: plots.neuron_flow(dataset, seed=seed),
            KEYS,
        )
    ]


def attention(inputs: ReportInputs) -> list[FigurePlan]:
    """Attention of each head to each position."""
    dataset, seed = inputs.dataset, inputs.first_seed
    return [
        FigurePlan(
            "attention",
            f"Attention (seed {seed})",
            "Mean attention from the position at which the answer is read: colours are heads, line"
            " styles attended positions (solid: the first).",
            "Attention of each head to each position against the step.",
            {"attention_pattern"},
            lambda: plots.attention_curves(dataset, seed=seed),
        )
    ]


def hidden_progress(inputs: ReportInputs) -> list[FigurePlan]:
    """Readings of the weights that change before the accuracy does."""
    sparsity = ""
    if "effective_sparsity" in inputs.dataset:
        sparsity = (
            " Bottom: effective sparsity, how many neurons, taken in order of their input norm,"
            " reach the training accuracy of all."
        )
    return [
        FigurePlan(
            "hidden_progress",
            "Progress in the weights before the accuracy rises",
            "Top: accuracy. Middle: hidden progress, the largest change of a first-layer weight"
            " since initialisation; weight gap, by how much the smallest weight of a neuron on the"
            " relevant inputs exceeds its largest one elsewhere, for the neuron where this is"
            f" largest.{sparsity}{seed_note(inputs)}",
            "Accuracy, hidden progress and effective sparsity against the step.",
            {"test_accuracy", "hidden_progress"},
            lambda: plots.hidden_progress_panels(inputs.dataset),
            shows=("weight_gap", "effective_sparsity"),
        )
    ]


def positions(inputs: ReportInputs) -> list[FigurePlan]:
    """Test loss of each answer, if several answers of an example are read."""
    dataset, seed = inputs.dataset, inputs.first_seed
    return [
        FigurePlan(
            "positions",
            f"Test loss by position (seed {seed})",
            "Test loss of each answer, by the position in the input at which it is read.",
            "Test loss of each position against the step.",
            {"test_loss_by_position"},
            lambda: plots.position_curves(dataset, seed=seed),
        )
    ]
