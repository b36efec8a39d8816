"""Every reading of every room by name: what ``measure`` takes and ``list measures`` lists."""

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
"""What is read when nothing is named: together a few forward passes a checkpoint."""

EXPENSIVE: Mapping[str, Measure] = {
    **LANDSCAPE,
    **PROBES,
    **BY_WEIGHT,
    **COMPOSITION,
    **EIGENVALUES,
    **SPECTRA,
    **COMPARISONS,
}
"""What is read only when it is named: samplers and fits, seconds a checkpoint; what counts a dim
otherwise than the rest.
"""

WITH_OPTIONS: Mapping[str, Callable[..., Measure]] = {
    "learning_coefficient": measure_learning_coefficient,
    "sharpness": measure_sharpness,
    "probe_accuracy": probe_accuracy,
    "probe_selectivity": probe_selectivity,
    "probe_mdl": probe_mdl,
    "probe_effect": probe_effect,
}
"""What is named with options of its own: ``learning_coefficient(parameters="unembed.*")``."""


def with_options(text: str) -> Measure:
    """The measure that a call says. Raises ConfigError for an unknown one, or for options that it
    doesn't have or can't be.
    """
    return called(
        text,
        WITH_OPTIONS,
        kind="measure with options",
        example="learning_coefficient(parameters='unembed.*')",
    )
