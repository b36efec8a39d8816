"""Schedules of the learning rate: factors that multiply it, after a linear warm-up."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax.numpy as jnp

from mi_jax.basics.dims import Count, Scalar
from mi_jax.basics.errors import require


@dataclass(frozen=True)
class RateSchedule(ABC):
    """Base of the schedules: a factor of the learning rate by update.

    Lengths are given in updates, since a schedule does not know the length of the run.
    """

    @property
    @abstractmethod
    def end(self) -> int:
        """The update after which the factor is constant."""

    @abstractmethod
    def factor(self, step: Count, warmup: int) -> Scalar:
        """The factor at one update.

        Args:
            step: the update, counted from 0; traced.
            warmup: the number of updates of the warm-up, which comes before the schedule.
        """


def warmed_up(step: Count, warmup: int) -> Scalar:
    """Factor min(s / warmup, 1) at update s: 0 at the first, as in the code of arXiv 2301.05217.

    Args:
        step: the update s, counted from 0; traced.
        warmup: the number of updates of the warm-up, at least 1.
    """
    return jnp.minimum(jnp.asarray(step, float) / warmup, 1.0)


def _progress(step: Count, warmup: int, steps: int) -> Scalar:
    """Progress x: 0 until the end of the warm-up, then linear to 1 at update ``steps``, then 1."""
    return jnp.clip((jnp.asarray(step, float) - warmup) / (steps - warmup), 0.0, 1.0)


def _check_length(name: str, steps: int, floor: float) -> None:
    require(steps >= 1, f"{name}(steps={steps}): must be at least 1 update.")
    require(
        0 <= floor <= 1,
        f"{name}(floor={floor}): must be a fraction of the learning rate, from 0 to 1.",
    )


@dataclass(frozen=True)
class CosineRate(RateSchedule):
    """Cosine decay: floor + (1 - floor) (1 + cos(pi x)) / 2 (arXiv 1608.03983), where x rises
    linearly from 0 at the end of the warm-up to 1 at update ``steps``.

    Attributes:
        steps: the update from which the factor is ``floor``.
        floor: the last factor, from 0 to 1.
    """

    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_length("cosine rate", self.steps, self.floor)

    @property
    def end(self) -> int:
        """The update from which the factor is ``floor``: ``steps``."""
        return self.steps

    def factor(self, step: Count, warmup: int) -> Scalar:
        """Cosine factor at ``step``."""
        return (
            self.floor
            + (1 - self.floor) * (1 + jnp.cos(math.pi * _progress(step, warmup, self.steps))) / 2
        )


@dataclass(frozen=True)
class LinearRate(RateSchedule):
    """Linear decay: 1 - (1 - floor) x, where x rises linearly from 0 at the end of the warm-up to 1
    at update ``steps``.

    Attributes:
        steps: the update from which the factor is ``floor``.
        floor: the last factor, from 0 to 1.
    """

    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_length("linear rate", self.steps, self.floor)

    @property
    def end(self) -> int:
        """The update from which the factor is ``floor``: ``steps``."""
        return self.steps

    def factor(self, step: Count, warmup: int) -> Scalar:
        """Linear factor at ``step``."""
        return 1 - (1 - self.floor) * _progress(step, warmup, self.steps)


@dataclass(frozen=True)
class StepRate(RateSchedule):
    """Step decay: by^i, where i is the number of updates in ``at`` that have been reached.

    Attributes:
        at: the updates from which the rate is multiplied once more, rising.
        by: the factor of each step.
    """

    at: tuple[int, ...]
    by: float = 0.1

    def __post_init__(self) -> None:
        require(
            len(self.at) > 0 and min(self.at) >= 1,
            f"step rate(at={self.at}): must be updates of at least 1.",
        )
        require(
            list(self.at) == sorted(set(self.at)),
            f"step rate(at={self.at}): must rise, each update once.",
        )
        require(
            0 <= self.by < math.inf,
            f"step rate(by={self.by}): must be a finite number of at least 0.",
        )

    @property
    def end(self) -> int:
        """The last update in ``at``."""
        return self.at[-1]

    def factor(self, step: Count, warmup: int) -> Scalar:
        """Factor at ``step``, from the number of updates in ``at`` reached."""
        return jnp.asarray(self.by, float) ** jnp.sum(jnp.asarray(step) >= jnp.asarray(self.at))


RATES = {"cosine_rate": CosineRate, "linear_rate": LinearRate, "step_rate": StepRate}
"""The schedules of the learning rate by registry name; without one the rate is constant."""
