"""How the learning rate changes over training: values that multiply it, after a linear warm-up."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax.numpy as jnp

from mi_jax.basics.dims import Count, Scalar
from mi_jax.basics.errors import require


@dataclass(frozen=True)
class RateSchedule(ABC):
    """A factor of the learning rate by update. Lengths are given in updates: no schedule knows how
    long a run is.
    """

    @property
    @abstractmethod
    def end(self) -> int:
        """The update from which on the factor stays as it is."""

    @abstractmethod
    def factor(self, step: Count, warmup: int) -> Scalar:
        """The factor of update ``step``, of which the first ``warmup`` are those of the warm-up."""


def warmed_up(step: Count, warmup: int) -> Scalar:
    """min(s / warmup, 1): the first update has the rate 0, as in the code of arXiv 2301.05217."""
    return jnp.minimum(jnp.asarray(step, float) / warmup, 1.0)


def _progress(step: Count, warmup: int, steps: int) -> Scalar:
    """From 0 at the end of the warm-up to 1 at update ``steps`` and after."""
    return jnp.clip((jnp.asarray(step, float) - warmup) / (steps - warmup), 0.0, 1.0)


def _check_length(name: str, steps: int, floor: float) -> None:
    require(steps >= 1, f"{name}(steps={steps}): must be at least 1 update")
    require(
        0 <= floor <= 1, f"{name}(floor={floor}): must be a share of the learning rate, from 0 to 1"
    )


@dataclass(frozen=True)
class CosineRate(RateSchedule):
    """floor + (1 - floor) (1 + cos(pi x)) / 2 (arXiv 1608.03983), x from 0 at the end of the
    warm-up to 1 at update ``steps``.

    Attributes:
        steps: the update from which on the factor is ``floor``. floor: a share of the learning
            rate.
    """

    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_length("cosine rate", self.steps, self.floor)

    @property
    def end(self) -> int:
        """As given."""
        return self.steps

    def factor(self, step: Count, warmup: int) -> Scalar:
        """By the cosine."""
        return (
            self.floor
            + (1 - self.floor) * (1 + jnp.cos(math.pi * _progress(step, warmup, self.steps))) / 2
        )


@dataclass(frozen=True)
class LinearRate(RateSchedule):
    """1 - (1 - floor) x, x from 0 at the end of the warm-up to 1 at update ``steps``.

    Attributes:
        steps: the update from which on the factor is ``floor``. floor: a share of the learning
            rate.
    """

    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_length("linear rate", self.steps, self.floor)

    @property
    def end(self) -> int:
        """As given."""
        return self.steps

    def factor(self, step: Count, warmup: int) -> Scalar:
        """By the line."""
        return 1 - (1 - self.floor) * _progress(step, warmup, self.steps)


@dataclass(frozen=True)
class StepRate(RateSchedule):
    """factor^i, i being how many of the updates ``at`` have been reached.

    Attributes:
        at: updates, each of which is the first with a rate multiplied once more. by: what it is
            multiplied by.
    """

    at: tuple[int, ...]
    by: float = 0.1

    def __post_init__(self) -> None:
        require(
            len(self.at) > 0 and min(self.at) >= 1,
            f"step rate(at={self.at}): must be updates of at least 1",
        )
        require(
            list(self.at) == sorted(set(self.at)),
            f"step rate(at={self.at}): must rise, each update once",
        )
        require(
            0 <= self.by < math.inf,
            f"step rate(by={self.by}): must be a finite number of at least 0",
        )

    @property
    def end(self) -> int:
        """The last of the updates given."""
        return self.at[-1]

    def factor(self, step: Count, warmup: int) -> Scalar:
        """By the count of the updates reached."""
        return jnp.asarray(self.by, float) ** jnp.sum(jnp.asarray(step) >= jnp.asarray(self.at))


RATES = {"cosine_rate": CosineRate, "linear_rate": LinearRate, "step_rate": StepRate}
"""Every schedule of the learning rate by registry name; without one it is constant."""
