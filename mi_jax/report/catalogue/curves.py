"""Loss, accuracy and progress measures over training."""

from mi_jax import plots
from mi_jax.dynamics import AT_ONCE
from mi_jax.report.catalogue.plan import DATES, FigurePlan, date_note, seed_note
from mi_jax.report.inputs import ReportInputs


def progress(inputs: ReportInputs) -> list[FigurePlan]:
    """Restricted and excluded loss beside the test loss."""
    null = inputs.nulls.frequencies
    band = ""
    if {"restricted_loss", "excluded_loss"} & set(null):
        band = (
            " Bands: the same losses with other frequencies in place of the key ones (range over"
            " random draws)."
        )
    return [
        FigurePlan(
            "progress",
            "The circuit under the loss",
            "Restricted loss: only the key frequencies of the logits and the class means are kept;"
            " over all pairs. Excluded loss: the key frequencies are removed and everything else is"
            " kept; over the training pairs. The key frequencies are those of the final model"
            f" (retrospective).{band}{date_note(inputs)}{seed_note(inputs)}",
            "Restricted, excluded and test loss against the step, both axes logarithmic.",
            {"restricted_loss", "excluded_loss", "test_loss"},
            lambda: plots.progress_curves(
                inputs.dataset, dates=inputs.dates, phases=inputs.phases, null=null
            ),
            DATES,
        )
    ]


def loss(inputs: ReportInputs) -> list[FigurePlan]:
    """Training and test loss."""
    return [
        FigurePlan(
            "loss",
            "Loss",
            f"Training and test loss over training.{date_note(inputs)}{seed_note(inputs)}",
            "Training and test loss against the step, both axes logarithmic.",
            {"train_loss", "test_loss"},
            lambda: plots.loss_curves(inputs.dataset, dates=inputs.dates, phases=inputs.phases),
            DATES,
        )
    ]


def accuracy(inputs: ReportInputs) -> list[FigurePlan]:
    """Training and test accuracy."""
    return [
        FigurePlan(
            "accuracy",
            "Accuracy",
            f"Training and test accuracy over training.{date_note(inputs)}{seed_note(inputs)}",
            "Training and test accuracy against the step.",
            {"train_accuracy", "test_accuracy"},
            lambda: plots.accuracy_curves(inputs.dataset, dates=inputs.dates, phases=inputs.phases),
            DATES,
        )
    ]


def wrong_labels(inputs: ReportInputs) -> list[FigurePlan]:
    """Accuracy on clean and on mislabelled training examples, if some are mislabelled."""
    needs = {"clean_accuracy", "memorised_accuracy", "corrected_accuracy", "test_accuracy"}
    if not set(inputs.dataset) >= needs:
        return []
    return [
        FigurePlan(
            "wrong_labels",
            "Accuracy on mislabelled examples",
            "Accuracy on training examples with the right label, on mislabelled ones against the"
            " label that was given and against the right one, and on the test set."
            f"{seed_note(inputs)}",
            "Four accuracies against the step.",
            needs,
            lambda: plots.label_noise_curves(inputs.dataset),
        )
    ]


def test_curves(inputs: ReportInputs) -> list[FigurePlan]:
    """Test loss and test accuracy alone, if every step draws fresh examples: then there are no
    training curves to compare them with.
    """
    if inputs.dates is not None or {"train_loss", "train_accuracy"} & set(inputs.dataset):
        return []
    return [
        FigurePlan(
            "test_loss",
            "Test loss",
            f"Test loss over training.{seed_note(inputs)}",
            "Test loss against the step.",
            {"test_loss"},
            lambda: plots.loss_curves(inputs.dataset),
        ),
        FigurePlan(
            "test_accuracy",
            "Test accuracy",
            f"Test accuracy over training.{seed_note(inputs)}",
            "Test accuracy against the step.",
            {"test_accuracy"},
            lambda: plots.accuracy_curves(inputs.dataset),
        ),
    ]


def seeds(inputs: ReportInputs) -> list[FigurePlan]:
    """Every seed against its own step of grokking, if several seeds grokked, not at once."""
    dates, phases = inputs.dates, inputs.phases
    if dates is None or not dates.grokked.notnull().any() or inputs.dataset.sizes["seed"] < 2:
        return []
    if phases is not None and bool((phases.verdict == AT_ONCE).all()):
        return []
    return [
        FigurePlan(
            "seeds",
            "Seeds aligned at grokking",
            "Test accuracy of each seed; steps are divided by the seed's step of grokking. Seeds"
            " that never grok are dotted and grey.",
            "Test accuracy of each seed, its step of grokking at one.",
            {"test_accuracy"},
            lambda: plots.aligned_seeds(inputs.dataset, dates),
            ("grokked",),
        )
    ]
