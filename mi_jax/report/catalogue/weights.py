"""Sizes of the weights, their singular values, and the irreducible representations that the
network computes with.
"""

from mi_jax import plots
from mi_jax.report.catalogue.plan import FigurePlan
from mi_jax.report.inputs import ReportInputs


def norms(inputs: ReportInputs) -> list[FigurePlan]:
    """Sum of squares of each array of parameters."""
    dataset, seed = inputs.dataset, inputs.first_seed
    return [
        FigurePlan(
            "norms",
            f"Size of the weights (seed {seed})",
            "Sum of squared weights of each array of parameters.",
            "Sum of squared weights of each array against the step.",
            {"sum_squared_weights_by_parameter"},
            lambda: plots.norm_curves(dataset, seed=seed),
        )
    ]


def singular_values(inputs: ReportInputs) -> list[FigurePlan]:
    """Largest singular values of the unembedding."""
    dataset, seed = inputs.dataset, inputs.first_seed
    return [
        FigurePlan(
            "singular_values",
            f"Singular values of the unembedding (seed {seed})",
            "The 16 largest singular values of the map from neurons to logits, W_L, the largest"
            " darkest.",
            "Singular values against the step.",
            {"singular_values_unembedding"},
            lambda: plots.singular_value_curves(dataset, seed=seed),
        )
    ]


def irreps(inputs: ReportInputs) -> list[FigurePlan]:
    """Similarity of the logits to each irreducible representation."""
    null = inputs.nulls.untrained.get("logit_similarity")
    band = ""
    if null is not None:
        band = " Band: untrained networks (range over random draws and all irreps)."
    return [
        FigurePlan(
            "irreps",
            "Irreps that the network computes with",
            "Cosine similarity of the logits with the character of each irreducible representation"
            " (irrep) at x y z^-1, where x y is the input and z the answer; that of the trivial"
            f" irrep is 0. Line styles are seeds.{band}",
            "Similarity to each irrep against the step.",
            {"logit_similarity"},
            lambda: plots.irrep_curves(inputs.dataset, null=null),
        )
    ]
