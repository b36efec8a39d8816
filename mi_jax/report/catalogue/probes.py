"""Probes: concepts that can be decoded, beside concepts that are used."""

from mi_jax import plots
from mi_jax.dynamics import readout_site
from mi_jax.report.catalogue.plan import FigurePlan, seed_note
from mi_jax.report.inputs import ReportInputs

_NEEDS = {"probe_accuracy", "probe_accuracy_control", "probe_effect", "probe_effect_null"}


def decodable_and_used(inputs: ReportInputs) -> list[FigurePlan]:
    """Probe accuracy and effect of erasure over training, by concept."""
    dataset = inputs.dataset
    if not set(dataset) >= _NEEDS:
        return []
    return [
        FigurePlan(
            "decodable_and_used",
            f"Concepts decodable and used at {readout_site(dataset)}",
            "Blue: accuracy of a linear probe on the half of the examples that it was not fitted"
            " on; pale blue: the same on the control task, in which tokens are renamed at random."
            " Orange: how far the distribution over answers moves (total variation) when the"
            " probe's subspace is erased; band: the range over random subspaces of the same rank."
            " Where blue lies on its control task, the site does not represent the concept as such,"
            f" and orange says nothing about it.{seed_note(inputs)}",
            "Probe accuracy and effect of erasure against the step, by concept.",
            _NEEDS,
            lambda: plots.decodable_and_used(dataset),
            shows=("probe_accuracy_train",),
        )
    ]


def probe_map(inputs: ReportInputs) -> list[FigurePlan]:
    """Probe accuracy and effect of erasure by site and concept in the last snapshot."""
    dataset = inputs.dataset
    if not set(dataset) >= _NEEDS:
        return []
    return [
        FigurePlan(
            "probe_map",
            "Where concepts are decodable, and where they are used",
            "Last snapshot, mean over seeds. Left: probe accuracy on held-out examples, which is"
            " high by chance where there are few classes. Middle: the same minus the accuracy on"
            " the control task. Right: the effect of erasing the concept minus the largest effect"
            " of a random subspace. A concept that is bright in the middle and dark on the right is"
            " present at that site but not used there.",
            "Accuracy and effect by site and concept.",
            _NEEDS,
            lambda: plots.probe_map(dataset),
        )
    ]
