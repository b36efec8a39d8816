"""When to snapshot: a value, turned into a sorted array of steps before training begins.

Every schedule keeps the first and the last step as well: the measures' references. Schedules join
    with ``|``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from mi_jax.basics.errors import require

Steps = Int[np.ndarray, " step"]


@dataclass(frozen=True)
class Schedule(ABC):
    """A set of steps, relative to the run's length unless steps are given."""

    @abstractmethod
    def chosen(self, last: int) -> Any:
        """The chosen steps of a run of ``last`` steps, any order; 0 and ``last`` are added."""

    def steps(self, last: int) -> Steps:
        """Sorted, distinct, 0 and ``last`` among them. Raises ConfigError for steps outside the
        run.
        """
        chosen = np.unique(
            np.concatenate([np.asarray(self.chosen(last), np.int64).ravel(), [0, last]])
        )
        require(
            bool(chosen[0] >= 0 and chosen[-1] <= last),
            f"snapshots at steps {chosen[(chosen < 0) | (chosen > last)].tolist()} lie outside the"
            f" run: steps are 0 to {last}",
        )
        return chosen

    def __or__(self, other: "Schedule") -> "Union":
        return Union((self, other))


@dataclass(frozen=True)
class Every(Schedule):
    """0, n, 2n, ..."""

    n: int

    def __post_init__(self) -> None:
        require(self.n >= 1, f"every({self.n}): must be at least 1")

    def chosen(self, last: int) -> Steps:
        """Multiples of n."""
        return np.arange(0, last + 1, self.n)


@dataclass(frozen=True)
class LogSpaced(Schedule):
    """Exactly n distinct steps, spaced evenly in log(step + 1) as far as whole steps allow, 0 and
    the last among them.

    A run of fewer than n steps is kept at every step. (Rounding a log grid gives 143 to 151 of 200:
    its first steps coincide.)
    """

    n: int

    def __post_init__(self) -> None:
        require(
            self.n >= 2,
            f"log_spaced({self.n}): must be at least 2, for the first and the last step",
        )

    def chosen(self, last: int) -> Steps:
        """The finest log grid whose rounding has n distinct steps, thinned evenly to exactly n."""
        if last + 1 <= self.n:
            return np.arange(last + 1)
        points = self.n
        while True:
            grid = np.unique(
                np.round(np.expm1(np.linspace(0, np.log1p(last), points))).astype(np.int64)
            )
            if len(grid) >= self.n:
                return grid[np.round(np.linspace(0, len(grid) - 1, self.n)).astype(np.int64)]
            points = max(points + 1, points + points // 20)


@dataclass(frozen=True)
class At(Schedule):
    """The steps given."""

    at: tuple[int, ...]

    def chosen(self, last: int) -> Steps:
        """As given."""
        return np.array(self.at, np.int64)


@dataclass(frozen=True)
class Dense(Schedule):
    """Every step within ``width`` of ``around``, as far as the run goes."""

    around: int
    width: int

    def __post_init__(self) -> None:
        require(self.width >= 0, f"dense(width={self.width}): must be at least 0")

    def chosen(self, last: int) -> Steps:
        """The window. Raises ConfigError where its middle lies outside the run."""
        require(
            0 <= self.around <= last,
            f"dense(around={self.around}): lies outside the run's steps 0 to {last}",
        )
        return np.arange(max(0, self.around - self.width), min(last, self.around + self.width) + 1)


@dataclass(frozen=True)
class Union(Schedule):
    """The steps of several schedules."""

    parts: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        require(len(self.parts) > 0, "a union of no schedules; give at least one")

    def chosen(self, last: int) -> Steps:
        """All of them."""
        return np.concatenate([part.steps(last) for part in self.parts])


def every(n: int) -> Every:
    """Steps 0, n, 2n, ... and the last."""
    return Every(n)


def log_spaced(n: int) -> LogSpaced:
    """Exactly n distinct steps, denser at the start.

    Example:
        >>> log_spaced(6).steps(100)
        array([  0,   2,   5,  15,  39, 100])
    """
    return LogSpaced(n)


def at(*steps: int) -> At:
    """The steps given, with 0 and the last."""
    return At(tuple(steps))


def dense(around: int, width: int) -> Dense:
    """Every step from around - width to around + width."""
    return Dense(around, width)


SCHEDULES = {"every": Every, "log_spaced": LogSpaced, "at": At, "dense": Dense, "union": Union}
"""Every schedule by registry name."""
