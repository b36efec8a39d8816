"""Every reading of every room by name: what ``measure`` takes and ``list measures`` lists."""

from collections.abc import Mapping

from mi_jax.circuits import CIRCUITS, COMPOSITION, EIGENVALUES
from mi_jax.contracts import Measure
from mi_jax.decompositions import COMPARISONS, DECOMPOSITIONS, SPECTRA
from mi_jax.landscape import LANDSCAPE
from mi_jax.measures import BY_WEIGHT, MEASURES, PROBES

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
"""What is read only when it is named: samplers and fits, seconds a checkpoint; what counts a dim otherwise than the rest."""
