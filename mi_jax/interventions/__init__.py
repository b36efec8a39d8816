"""Interventions on training: one change at one named place, for a range of updates, stored with
the run.

To add an intervention, write a frozen dataclass in a new file that derives from one of the places
(``AtSettings``, ``AtBatch``, ``AtSite``, ``AtGradient``, ``AtParams``), and add a line to
``INTERVENTIONS``. Mark the fields whose values reach the program as arrays with ``value_field``.
"""

from mi_jax.basics.moved import renamed_attributes
from mi_jax.interventions.change import Change
from mi_jax.interventions.parameters import Freeze, Graft, Reset
from mi_jax.interventions.places import (
    AtBatch,
    AtGradient,
    AtParams,
    AtSettings,
    AtSite,
    CheckContext,
    Forward,
    InProgram,
    Intervention,
    PrepareContext,
    Settings,
    value_field,
)
from mi_jax.interventions.project import Project
from mi_jax.interventions.sites import Ablate, Clamp, Transplant

INTERVENTIONS = {
    "change": Change,
    "clamp": Clamp,
    "ablate": Ablate,
    "transplant": Transplant,
    "graft": Graft,
    "freeze": Freeze,
    "reset": Reset,
    "project": Project,
}
"""The interventions by registry name."""

__all__ = [
    "INTERVENTIONS",
    "Ablate",
    "AtBatch",
    "AtGradient",
    "AtParams",
    "AtSettings",
    "AtSite",
    "Change",
    "CheckContext",
    "Clamp",
    "Forward",
    "Freeze",
    "Graft",
    "InProgram",
    "Intervention",
    "PrepareContext",
    "Project",
    "Reset",
    "Settings",
    "Transplant",
    "value_field",
]

__getattr__ = renamed_attributes(__name__, {"Moment": "PrepareContext", "Trained": "CheckContext"})
