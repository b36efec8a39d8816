"""Dynamics: arrays in, dates out. These functions know no model and work on any curves."""

from mi_jax.basics.moved import renamed_attributes
from mi_jax.dynamics.births import births
from mi_jax.dynamics.changepoints import ChangePoint, Segmentation, null_penalty, segment
from mi_jax.dynamics.dating import (
    GROKKING,
    GROKKING_RULES,
    LIU_2022,
    PHASE_RULE,
    VERDICTS,
    GrokkingRule,
    crossings,
    first_crossing,
    grokking_dates,
    retrospective_phases,
)
from mi_jax.dynamics.evidence import LEVELS, REPLICATED, Claim, ClaimTest, judge, judge_page
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
from mi_jax.dynamics.probing import (
    Verdict,
    probe_claims,
    probe_readings,
    probe_tests,
    readout_site,
    verdicts,
)
from mi_jax.dynamics.regimes import GAP, LEVEL, REGIMES, regimes
from mi_jax.dynamics.transitions import (
    ACCURACY,
    Dates,
    interpolated_crossing,
    interpolated_crossings,
    transitions,
)

__all__ = [
    "ACCURACY",
    "AT_ONCE",
    "GAP",
    "GROKKING",
    "GROKKING_RULES",
    "LEVEL",
    "LEVELS",
    "LIU_2022",
    "PHASE_RULE",
    "REGIMES",
    "REPLICATED",
    "RULE",
    "VERDICTS",
    "ChangePoint",
    "Claim",
    "ClaimTest",
    "DateInterval",
    "Dates",
    "GrokkingRule",
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
    "grokking_dates",
    "interpolated_crossing",
    "interpolated_crossings",
    "interval",
    "judge",
    "judge_page",
    "likeness",
    "null_penalty",
    "path_of_products",
    "phases",
    "principal_path",
    "probe_claims",
    "probe_readings",
    "probe_tests",
    "readout_site",
    "regimes",
    "retrospective_phases",
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
