"""Fourier frequencies of the weights, and what each is worth."""

from matplotlib.axes import Axes

from mi_jax import plots
from mi_jax.report.catalogue.plan import KEYS, FigurePlan
from mi_jax.report.inputs import ReportInputs

_MAP_ALT = "A map of frequency and step: the darker, the more power."


def frequencies(inputs: ReportInputs) -> list[FigurePlan]:
    """Frequencies of the unembedding over training, with the births of the key ones."""
    dataset, seed = inputs.dataset, inputs.first_seed
    triangles = ""
    if inputs.births is not None:
        triangles = (
            " Triangles: by this snapshot, a final key frequency has begun to hold more than twice"
            " an even share for good; those that point left, before the first snapshot."
        )
    return [
        FigurePlan(
            "frequencies",
            f"Frequencies of the unembedding (seed {seed})",
            "Share of each Fourier frequency in the map from neurons to logits, W_L. Key"
            f" frequencies of the final model are labelled on the right.{triangles}",
            _MAP_ALT,
            {"fourier_power_unembedding"},
            lambda: plots.frequency_map(dataset, seed=seed, births=inputs.births),
            ("births", *KEYS),
        )
    ]


def frequencies_embedding(inputs: ReportInputs) -> list[FigurePlan]:
    """Frequencies of the embedding over training."""
    dataset, seed = inputs.dataset, inputs.first_seed
    return [
        FigurePlan(
            "frequencies_embedding",
            f"Frequencies of the embedding (seed {seed})",
            "Share of each Fourier frequency in the embedding, W_E. Key frequencies of the final"
            " model are labelled on the right.",
            _MAP_ALT,
            {"fourier_power_embedding"},
            lambda: plots.frequency_map(dataset, seed=seed, place="embedding"),
            KEYS,
        )
    ]


def spectra(inputs: ReportInputs) -> list[FigurePlan]:
    """Frequencies of embedding and unembedding in the last snapshot."""
    dataset, seed = inputs.dataset, inputs.first_seed
    return [
        FigurePlan(
            "spectra",
            f"Final Fourier spectra (seed {seed})",
            "Share of each frequency in the embedding and in the map from neurons to logits, in the"
            " last snapshot.",
            "Two bars per frequency, one for each of the two maps.",
            {"fourier_power_embedding", "fourier_power_unembedding"},
            lambda: plots.spectra(dataset, seed=seed),
        )
    ]


def gini(inputs: ReportInputs) -> list[FigurePlan]:
    """Sparsity of embedding and unembedding in the Fourier basis."""
    null = inputs.nulls.untrained
    band = ""
    if {"gini_embedding", "gini_unembedding"} & set(null):
        band = " Bands: untrained networks (range over random draws)."
    return [
        FigurePlan(
            "gini",
            "Sparsity in the Fourier basis",
            "Gini coefficient of the norms of the Fourier components: 0 where all are equal, near 1"
            f" where few hold everything.{band}",
            "Two Gini coefficients against the step, beside untrained networks.",
            {"gini_embedding", "gini_unembedding"},
            lambda: plots.gini_curves(inputs.dataset, null=null),
        )
    ]


def excluded_by_frequency(inputs: ReportInputs) -> list[FigurePlan]:
    """Training loss without each frequency."""
    dataset, seed = inputs.dataset, inputs.first_seed

    def draw() -> Axes:
        axes = plots.frequency_lines(
            dataset, "excluded_loss_by_frequency", "excluded loss", seed=seed
        )
        axes.set_yscale("log")
        return axes

    return [
        FigurePlan(
            "excluded_by_frequency",
            f"Loss without each frequency (seed {seed})",
            "Training loss when one frequency is removed from the logits: the final key frequencies"
            " in colour, all others in grey.",
            "Excluded loss against the step, one line per frequency.",
            {"excluded_loss_by_frequency"},
            draw,
            KEYS,
        )
    ]
