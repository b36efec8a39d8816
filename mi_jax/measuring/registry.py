"""Registry of all measures by name: those that ``measure`` accepts and ``list measures`` prints."""

from collections.abc import Callable, Mapping

from mi_jax.basics.calls import called
from mi_jax.circuits import CIRCUITS, COMPOSITION, EIGENVALUES
from mi_jax.contracts import Measure
from mi_jax.decompositions import COMPARISONS, DECOMPOSITIONS, SPECTRA
from mi_jax.landscape import LANDSCAPE, measure_learning_coefficient, measure_sharpness
from mi_jax.measures import (
    BY_WEIGHT,
    MEASURES,
    PROBES,
    probe_accuracy,
    probe_effect,
    probe_mdl,
    probe_selectivity,
)

READINGS: Mapping[str, Measure] = {**MEASURES, **DECOMPOSITIONS, **CIRCUITS}
"""Measures taken by default. Together they cost a few forward passes per checkpoint."""

EXPENSIVE: Mapping[str, Measure] = {
    **LANDSCAPE,
    **PROBES,
    **BY_WEIGHT,
    **COMPOSITION,
    **EIGENVALUES,
    **SPECTRA,
    **COMPARISONS,
}
"""Measures taken only when named: samplers and fits, which cost seconds per checkpoint, and
measures whose coordinates of a dim differ from those of the default measures.
"""

WITH_OPTIONS: Mapping[str, Callable[..., Measure]] = {
    "learning_coefficient": measure_learning_coefficient,
    "sharpness": measure_sharpness,
    "probe_accuracy": probe_accuracy,
    "probe_selectivity": probe_selectivity,
    "probe_mdl": probe_mdl,
    "probe_effect": probe_effect,
}
"""Functions that make a measure with options: ``learning_coefficient(parameters="unembed.*")``."""


def with_options(text: str) -> Measure:
    """The measure of a call with options, written as text.

    Args:
        text: the call, with literal arguments, such as ``"sharpness(order=30)"``.

    Raises:
        ConfigError: if the measure or an option is unknown, or an option is invalid.
    """
    return called(
        text,
        WITH_OPTIONS,
        kind="measure with options",
        example="learning_coefficient(parameters='unembed.*')",
    )
