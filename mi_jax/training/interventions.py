"""Changes to training itself, each in force for a range of updates."""

import math
from dataclasses import dataclass
from typing import ClassVar

from mi_jax.contracts import Intervention, Numbers, Place
from mi_jax.errors import ConfigError, nearest, require


@dataclass(frozen=True, kw_only=True)
class Change(Intervention):
    """Sets one of the run's traced numbers to another value while in force.

    Example:
        >>> Change(field="optimizer.weight_decay", value=0.3, start=400).in_force(400)
        True

    Attributes:
        field: the number's dotted name, as in an override. value: what it is in force.
    """

    place: ClassVar[Place] = "numbers"
    field: str
    value: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(math.isfinite(self.value), f"Change({self.field}) to {self.value}: must be finite")

    def changed(self, numbers: Numbers) -> Numbers:
        """The numbers with this one replaced. Raises ConfigError where the run has no such number."""
        if self.field not in numbers:
            raise ConfigError(f"Change can't set '{self.field}'; {nearest(self.field, numbers)}")
        return {**numbers, self.field: self.value}


INTERVENTIONS = {"change": Change}
"""Every intervention by registry name."""


def boundaries(interventions: tuple[Intervention, ...]) -> set[int]:
    """The steps at which a range begins or ends: chunks of training end there."""
    return {step for i in interventions for step in (i.start, i.stop) if step is not None}


def numbers_in_force(numbers: Numbers, interventions: tuple[Intervention, ...], step: int) -> Numbers:
    """The run's numbers as the interventions in force at this update leave them, later ones last."""
    for intervention in interventions:
        if isinstance(intervention, Change) and intervention.in_force(step):
            numbers = intervention.changed(numbers)
    return numbers
