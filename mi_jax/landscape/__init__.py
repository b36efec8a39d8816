"""Geometry of the loss around a checkpoint: learning coefficient and curvature."""

from collections.abc import Mapping

from mi_jax.contracts import Measure
from mi_jax.landscape import exact
from mi_jax.landscape.calibration import calibrate, find_plateau
from mi_jax.landscape.coefficient import (
    Flags,
    LearningCoefficient,
    Protocol,
    estimate,
    learning_coefficient,
)
from mi_jax.landscape.curvature import (
    diverges_above,
    hessian_trace,
    lanczos,
    spectral_density,
    top_eigenvalues,
)
from mi_jax.landscape.diagnostics import Diagnostics, diagnose
from mi_jax.landscape.readings import measure_learning_coefficient, measure_sharpness, split_loss_of
from mi_jax.landscape.restriction import restrict
from mi_jax.landscape.sampling import sgld
from mi_jax.landscape.settings import RMSProp, SGLDSettings

LANDSCAPE: Mapping[str, Measure] = {
    measure.name: measure for measure in (measure_learning_coefficient(), measure_sharpness())
}
"""Measures of the landscape by name, with their published options."""

__all__ = [
    "LANDSCAPE",
    "Diagnostics",
    "Flags",
    "LearningCoefficient",
    "Protocol",
    "RMSProp",
    "SGLDSettings",
    "calibrate",
    "diagnose",
    "diverges_above",
    "estimate",
    "exact",
    "find_plateau",
    "hessian_trace",
    "lanczos",
    "learning_coefficient",
    "measure_learning_coefficient",
    "measure_sharpness",
    "restrict",
    "sgld",
    "spectral_density",
    "split_loss_of",
    "top_eigenvalues",
]
