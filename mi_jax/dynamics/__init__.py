"""Dynamics: arrays in, dates out. These functions know no model and work on any curves."""

from mi_jax.basics.moved import renamed_attributes
from mi_jax.dynamics.births import births
from mi_jax.dynamics.changepoints import ChangePoint, Segmentation, null_penalty, segment
from mi_jax.dynamics.evidence import LEVELS, Claim, judge
from mi_jax.dynamics.fits import Sigmoid, fit_sigmoid
from mi_jax.dynamics.intervals import (
    DateInterval,
    Interval,
    date_differences,
    date_interval,
    interval,
)
from mi_jax.dynamics.modes import ModeLines, follow_modes
from mi_jax.dynamics.paths import (
    PrincipalPath,
    likeness,
    path_of_products,
    principal_path,
    walk_like,
    walk_likeness,
    walk_path,
)
from mi_jax.dynamics.phases import AT_ONCE, RULE, Phases, phases
from mi_jax.dynamics.probing import Verdict, probe_claims, probe_readings, readout_site, verdicts
from mi_jax.dynamics.regimes import GAP, LEVEL, REGIMES, regimes
from mi_jax.dynamics.transitions import (
    ACCURACY,
    Dates,
    crossings,
    first_crossing,
    transitions,
)

__all__ = [
    "ACCURACY",
    "AT_ONCE",
    "GAP",
    "LEVEL",
    "LEVELS",
    "REGIMES",
    "RULE",
    "ChangePoint",
    "Claim",
    "DateInterval",
    "Dates",
    "Interval",
    "ModeLines",
    "Phases",
    "PrincipalPath",
    "Segmentation",
    "Sigmoid",
    "Verdict",
    "births",
    "crossings",
    "date_differences",
    "date_interval",
    "first_crossing",
    "fit_sigmoid",
    "follow_modes",
    "interval",
    "judge",
    "likeness",
    "null_penalty",
    "path_of_products",
    "phases",
    "principal_path",
    "probe_claims",
    "probe_readings",
    "readout_site",
    "regimes",
    "segment",
    "transitions",
    "verdicts",
    "walk_like",
    "walk_likeness",
    "walk_path",
]

__getattr__ = renamed_attributes(
    __name__, {"Path": "PrincipalPath", "Transition": "ChangePoint", "Transitions": "Dates"}
)
