"""Pictures of a few snapshots."""

from mi_jax import plots
from mi_jax.report.catalogue.plan import KEYS, FigurePlan
from mi_jax.report.inputs import ReportInputs


def surface(inputs: ReportInputs) -> list[FigurePlan]:
    """Margin of the right answer for every pair."""
    pictures, seed = inputs.pictures, inputs.first_seed
    return [
        FigurePlan(
            "surface",
            f"Right and wrong answers for all pairs (seed {seed})",
            "Logit of the right answer minus the largest other logit for every pair: blue where the"
            " answer is right, red where it is wrong; training pairs are framed in black.",
            "Tables of all pairs at several steps, coloured by margin.",
            {"answer_surface", "trained_pairs"},
            lambda: plots.answer_surface(pictures, seed=seed),
        )
    ]


def circles(inputs: ReportInputs) -> list[FigurePlan]:
    """Tokens in the planes of the key frequencies, if the seed has any."""
    pictures, dataset, seed = inputs.pictures, inputs.dataset, inputs.first_seed
    if not len(plots.key_labels(dataset, seed)):
        return []
    return [
        FigurePlan(
            "circles",
            f"The embedding on its circles (seed {seed})",
            "Embedded tokens in the planes of the final key frequencies, one row per frequency; the"
            " colour is the token's angle.",
            "Tokens in planes, at several steps.",
            {"circle_coordinates"},
            lambda: plots.embedding_circles(pictures, dataset, seed=seed),
            KEYS,
        )
    ]
