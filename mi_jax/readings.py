"""Every reading of every room by name: what ``measure`` takes and ``list measures`` lists."""

from collections.abc import Mapping

from mi_jax.contracts import Measure
from mi_jax.decompositions import DECOMPOSITIONS
from mi_jax.landscape import LANDSCAPE
from mi_jax.measures import MEASURES, PROBES

READINGS: Mapping[str, Measure] = {**MEASURES, **DECOMPOSITIONS}
"""What is read when nothing is named: together a few forward passes a checkpoint."""

EXPENSIVE: Mapping[str, Measure] = {**LANDSCAPE, **PROBES}
"""What is read only when it is named: samplers and fits, seconds a checkpoint."""
