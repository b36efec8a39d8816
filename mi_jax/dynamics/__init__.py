"""Dynamics: arrays in, dates out. These functions know no model and work on any curves."""

from mi_jax.basics.moved import renamed_attributes
from mi_jax.dynamics.births import births
from mi_jax.dynamics.changepoints import ChangePoint, Segmentation, null_penalty, segment
from mi_jax.dynamics.dating import (
    ACCURACY,
    DATES,
    GROKKING,
    GROKKING_RULES,
    LIU_2022,
    PHASE_RULE,
    VERDICTS,
    GrokkingRule,
    first_reached,
    grokking_dates,
    rule_of,
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
from mi_jax.dynamics.levels import (
    crossings,
    first_crossing,
    interpolated_crossing,
    interpolated_crossings,
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
from mi_jax.dynamics.probing import (
    Verdict,
    probe_claims,
    probe_readings,
    probe_tests,
    readout_site,
    verdicts,
)
from mi_jax.dynamics.retrospective import retrospective_phases
from mi_jax.dynamics.wording import date_text, date_texts, difference_text, median_text

__all__ = [
    "ACCURACY",
    "DATES",
    "GROKKING",
    "GROKKING_RULES",
    "LEVELS",
    "LIU_2022",
    "PHASE_RULE",
    "REPLICATED",
    "VERDICTS",
    "ChangePoint",
    "Claim",
    "ClaimTest",
    "DateInterval",
    "GrokkingRule",
    "Interval",
    "ModeLines",
    "PrincipalPath",
    "Segmentation",
    "Sigmoid",
    "Verdict",
    "births",
    "crossings",
    "date_differences",
    "date_interval",
    "date_text",
    "date_texts",
    "difference_text",
    "first_crossing",
    "first_reached",
    "fit_sigmoid",
    "follow_modes",
    "grokking_dates",
    "interpolated_crossing",
    "interpolated_crossings",
    "interval",
    "judge",
    "judge_page",
    "likeness",
    "median_text",
    "null_penalty",
    "path_of_products",
    "principal_path",
    "probe_claims",
    "probe_readings",
    "probe_tests",
    "readout_site",
    "retrospective_phases",
    "rule_of",
    "segment",
    "verdicts",
    "walk_like",
    "walk_likeness",
    "walk_path",
]

_DATES_NOW = (
    "Use dynamics.grokking_dates(dataset), whose dates are pairs of snapshots, with a verdict per"
    " seed."
)
__getattr__ = renamed_attributes(
    __name__,
    {"Path": "PrincipalPath", "Transition": "ChangePoint"},
    removed={
        **dict.fromkeys(
            ("Dates", "Phases", "Transitions", "phases", "regimes", "transitions"), _DATES_NOW
        ),
        "AT_ONCE": "The verdict is 'generalised at once'; dynamics.VERDICTS lists all.",
        "REGIMES": "dynamics.VERDICTS lists the verdicts of dynamics.grokking_dates.",
        "RULE": "dynamics.PHASE_RULE is the text of the rule now.",
        "GAP": "The published rule is dynamics.LIU_2022, with its level and its gap.",
        "LEVEL": "The published rule is dynamics.LIU_2022, with its level and its gap.",
    },
)
