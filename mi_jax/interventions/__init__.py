"""Interventions on training: one change at one named place, for a range of updates, stored with
the run.

Several interventions in one update act in a stated order:

1. Settings (``Change``), batches, sites and gradients: in the order of the list. Where two set the
   same thing, the later one wins.
2. Parameters, after the optimizer's update, whatever their order in the list: first ``Freeze``
   takes the update back; then ``Reset`` and ``Graft`` replace values; then ``Project`` and any
   intervention of a user's own change the values that stand there. Interventions of one of these
   three stages act in the order of the list. So ``Freeze`` holds what a ``Reset``, ``Graft`` or
   ``Project`` of the same update leaves, listed before or after it.
3. A held norm (``weight_norm`` of the optimizer): the parameters that no ``Freeze``, ``Reset`` or
   ``Graft`` set in this update are rescaled, so that the norm of all parameters is held.

An intervention of which others of the same list undo everything, at each of its updates, is
refused before training.

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
