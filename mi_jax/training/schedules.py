"""Snapshot schedules: values that give a sorted array of steps before training begins.

Every schedule includes the first and the last step, which measures refer to. Schedules join with
``|``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from mi_jax.basics.errors import ConfigError, require, whole

Steps = Int[np.ndarray, " step"]

MOST_SNAPSHOTS = 1_000_000
"""The most snapshots of a run, whose record lists the step of each."""

_MOST_LOG_SPACED = 100_000
"""The most snapshots of a log grid, which is found in about a second."""


@dataclass(frozen=True)
class Schedule(ABC):
    """Base of the schedules: a set of steps, which may depend on the length of the run."""

    @abstractmethod
    def chosen(self, last: int) -> Any:
        """The chosen steps of a run of ``last`` steps, in any order; 0 and ``last`` are added."""

    def at_most(self, last: int) -> int:
        """A bound on the number of chosen steps, by arithmetic; 0 where it is not known."""
        return 0

    def steps(self, last: int) -> Steps:
        """The steps of a run of ``last`` steps: sorted and distinct, with 0 and ``last``.

        Raises:
            ConfigError: for steps outside the run, or more than ``MOST_SNAPSHOTS`` of them.
        """
        most = self.at_most(last)
        if most > MOST_SNAPSHOTS:
            raise ConfigError(
                f"{self} keeps up to {most} snapshots of {last} steps; a run has at most"
                f" {MOST_SNAPSHOTS}. Keep fewer."
            )
        chosen = np.asarray(self.chosen(last), np.int64).ravel()
        steps = np.unique(np.concatenate([chosen, [0, last]]))
        outside = steps[(steps < 0) | (steps > last)].tolist()
        if outside:
            raise ConfigError(
                f"Snapshots at steps {outside} lie outside the run. Its steps are 0 to {last}."
            )
        return steps

    def __or__(self, other: "Schedule") -> "Union":
        return Union((self, other))


@dataclass(frozen=True)
class Every(Schedule):
    """Steps 0, n, 2n, ...

    Attributes:
        n: number of steps from one snapshot to the next.
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("every", self.n))
        require(self.n >= 1, f"every({self.n}): must be at least 1.")

    def at_most(self, last: int) -> int:
        """One in n steps, and step 0."""
        return last // self.n + 1

    def chosen(self, last: int) -> Steps:
        """Multiples of n, up to ``last``."""
        return np.arange(0, last + 1, self.n)


@dataclass(frozen=True)
class LogSpaced(Schedule):
    """Exactly n distinct steps, spaced evenly in log(step + 1) as far as whole steps allow; 0 and
    the last step are among them.

    A run of fewer than n steps has a snapshot at every step.

    Attributes:
        n: number of snapshots, at least 2.
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("log_spaced", self.n))
        require(
            self.n >= 2,
            f"log_spaced({self.n}): must be at least 2, for the first and the last step.",
        )

    def at_most(self, last: int) -> int:
        """n, or every step."""
        return min(self.n, last + 1)

    def chosen(self, last: int) -> Steps:
        """n steps chosen evenly from a log grid.

        The grid is refined until its rounded points hold at least n distinct steps.
        """
        if last + 1 <= self.n:
            return np.arange(last + 1)
        require(
            self.n <= _MOST_LOG_SPACED,
            f"log_spaced({self.n}): must be at most {_MOST_LOG_SPACED} for a run of {last} steps.",
        )
        # The first points of a rounded log grid coincide: 200 points leave 143 to 151 steps.
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
    """Given steps.

    Attributes:
        at: the steps, in any order.
    """

    at: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", tuple(whole("at", step) for step in self.at))

    def chosen(self, last: int) -> Steps:
        """The given steps."""
        return np.array(self.at, np.int64)


@dataclass(frozen=True)
class Dense(Schedule):
    """Every step from ``around`` - ``width`` to ``around`` + ``width``, within the run.

    Attributes:
        around: the step in the middle.
        width: number of steps to either side.
    """

    around: int
    width: int

    def __post_init__(self) -> None:
        for name in ("around", "width"):
            object.__setattr__(self, name, whole(f"dense: {name}", getattr(self, name)))
        require(self.width >= 0, f"dense(width={self.width}): must be at least 0.")

    def at_most(self, last: int) -> int:
        """The width on both sides, or every step."""
        return min(2 * self.width, last) + 1

    def chosen(self, last: int) -> Steps:
        """Steps of the window. Raises ConfigError if its middle lies outside the run."""
        require(
            0 <= self.around <= last,
            f"dense(around={self.around}): lies outside the run. Its steps are 0 to {last}.",
        )
        return np.arange(max(0, self.around - self.width), min(last, self.around + self.width) + 1)


@dataclass(frozen=True)
class Union(Schedule):
    """The steps of several schedules together.

    Attributes:
        parts: the schedules.
    """

    parts: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        require(len(self.parts) > 0, "A union of no schedules is empty. Give at least one.")

    def at_most(self, last: int) -> int:
        """The bounds of all parts together."""
        return sum(part.at_most(last) for part in self.parts)

    def chosen(self, last: int) -> Steps:
        """Steps of all parts."""
        return np.concatenate([part.steps(last) for part in self.parts])


def every(n: int) -> Every:
    """Snapshots at steps 0, n, 2n, ... and the last."""
    return Every(n)


def log_spaced(n: int) -> LogSpaced:
    """Snapshots at exactly n distinct steps, denser at the start of training.

    Example:
        >>> log_spaced(6).steps(100)
        array([  0,   2,   5,  15,  39, 100])
    """
    return LogSpaced(n)


def at(*steps: int) -> At:
    """Snapshots at the given steps, 0 and the last.

    Example:
        >>> (at(5, 7) | every(40)).steps(100)
        array([  0,   5,   7,  40,  80, 100])
    """
    return At(tuple(steps))


def dense(around: int, width: int) -> Dense:
    """Snapshots at every step from ``around`` - ``width`` to ``around`` + ``width``, at 0 and the
    last.

    Args:
        around: the step in the middle.
        width: number of steps to either side.
    """
    return Dense(around, width)


SCHEDULES = {"every": Every, "log_spaced": LogSpaced, "at": At, "dense": Dense, "union": Union}
"""The snapshot schedules by registry name."""
