"""Loss, accuracy and progress measures over training."""

import numpy as np

from mi_jax import plots
from mi_jax.dynamics import DATES, rule_of
from mi_jax.report.catalogue.plan import FigurePlan, date_note, seed_note
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
            lambda: plots.progress_curves(inputs.dataset, dates=inputs.dates, null=null),
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
            lambda: plots.loss_curves(inputs.dataset, dates=inputs.dates),
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
            lambda: plots.accuracy_curves(inputs.dataset, dates=inputs.dates),
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
    if "memorised" in inputs.dates or {"train_loss", "train_accuracy"} & set(inputs.dataset):
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
            f"Test accuracy over training.{date_note(inputs)}{seed_note(inputs)}",
            "Test accuracy against the step.",
            {"test_accuracy"},
            lambda: plots.accuracy_curves(inputs.dataset, dates=inputs.dates),
            ("generalised",),
        ),
    ]


def seeds(inputs: ReportInputs) -> list[FigurePlan]:
    """Every seed against its own step of generalising, if several seeds got there, and not all at
    once with memorising.
    """
    dates = inputs.dates
    if "verdict" not in dates or dates.sizes["seed"] < 2:
        return []
    generalised = np.isfinite(dates["generalised"].sel(bound="upper")).any()
    if not generalised or bool((dates["verdict"] == "generalised at once").all()):
        return []
    return [
        FigurePlan(
            "seeds",
            "Seeds aligned at generalising",
            "Test accuracy of each seed. Steps are divided by the first snapshot at which the seed"
            f" has {rule_of(dates.attrs).level:g} test accuracy; the strip at the left of 1 reaches"
            " back to the snapshot before, for the seed whose snapshots lie farthest apart. The"
            " axis begins at one hundredth. Seeds that have not got there are dotted and grey, and"
            " divided by the last snapshot.",
            "Test accuracy of each seed, its step of generalising at one.",
            {"test_accuracy"},
            lambda: plots.aligned_seeds(inputs.dataset, dates),
            ("generalised",),
        )
    ]
