"""What an intervention is: one change to training at one named place, for a range of updates.

The places: ``AtSettings`` (numbers, data, optimizer, loss), ``AtBatch``, ``AtSite``,
    ``AtGradient``, ``AtParams``. A class of
one's own derives from the one where it acts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import require, whole
from mi_jax.basics.fields import Numbers, accepts_old_names
from mi_jax.contracts import Batch, Inputs, Loss, Model, Optimizer, Task
from mi_jax.models.taps import capture

Arrays = Mapping[str, Any]
"""What an intervention prepared, by name: of all seeds with a leading seed axis, or, in the
compiled step, of one seed.
"""

LoadParams = Callable[[str | None, int], Params]
"""(path of a run, step) -> its parameters, leading axis seed; None for the run that was forked.
Raises RunError.
"""


@accepts_old_names(elsewhere="load_params")
class CheckContext(NamedTuple):
    """What an intervention is checked against before training."""

    task: Task
    model: Model
    shapes: Mapping[str, tuple[int, ...]]
    """Every parameter's shape by dotted name, without the seed axis."""
    batch: Batch
    """The shapes of a batch."""
    load_params: LoadParams


class Forward(NamedTuple):
    """The forward pass of one update, as interventions at its sites know it."""

    model: Model
    apply: Callable[..., Array]
    """By the run's own route."""
    inputs: Any
    positions: tuple[int, ...]

    def dims(self, name: str) -> tuple[str, ...]:
        """The dims of a site."""
        return next(site.dims for site in self.model.sites if site.name == name)

    def activation(self, params: Params, name: str) -> Array:
        """What other parameters of this model give at a site for the same inputs."""
        return capture(self.apply, [name])(params, self.inputs, positions=self.positions)[1][name]


@accepts_old_names(elsewhere="load_params")
class PrepareContext(NamedTuple):
    """What an intervention makes its arrays from. Leading axis of parameters: seed."""

    seeds: tuple[int, ...]
    params: Params
    """The run's own before the first update that is changed; where ``reads_weights`` is False they
    may be any.
    """
    initial: Callable[[], Params]
    """Those of step 0."""
    model: Model
    inputs: Inputs
    load_params: LoadParams


class Settings(NamedTuple):
    """What an update is made by, as interventions leave it."""

    task: Task
    loss: Loss
    optimizer: Optimizer
    numbers: Numbers
    """Traced numbers that differ from the optimizer's own, by dotted name."""
    known: Mapping[str, Mapping[str, Callable[[], Any]]]
    """Losses and optimizers with their default settings, by part and name."""


@dataclass(frozen=True, kw_only=True)
class Intervention(ABC):  # noqa: B024 (what is abstract depends on the place)
    """One change to training at one named place, in force for updates ``start`` <= step < ``stop``
    (None: to the end).

    Those at the settings put others in their place. All others are part of the compiled program,
    one for each set in force, as their ``form``: without range and values, which reach the program
    as arrays. The trainer ends a chunk where an intervention comes into force or leaves it, so that
    no step outside knows of it.
    """

    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", whole("start", self.start))
        object.__setattr__(self, "stop", None if self.stop is None else whole("stop", self.stop))
        require(
            self.start >= 0 and (self.stop is None or self.stop > self.start),
            f"an intervention's range is empty: start={self.start}, stop={self.stop}; 0 <= start <"
            " stop is needed",
        )

    @property
    def period(self) -> int | None:
        """In force at every so manyth update of the range; None: at the first one alone."""
        return 1

    @property
    def reads_weights(self) -> bool:
        """Whether its arrays depend on the run's own parameters at its first update; else they are
        made before training.
        """
        return False

    def check(self, trained: CheckContext) -> None:
        """Raises ConfigError or RunError, before training, where it can't be done to what is
        trained.
        """
        return

    def prepare(self, moment: PrepareContext) -> dict[str, Any]:
        """Its arrays by name, with a leading seed axis; empty where it has none. Called once a run,
        and stored in it.
        """
        return {}

    def in_force(self, step: int) -> bool:
        """Whether update ``step`` is changed."""
        if self.period is None:
            return step == self.start
        return (
            self.start <= step
            and (self.stop is None or step < self.stop)
            and (step - self.start) % self.period == 0
        )

    def next_change(self, step: int) -> int | None:
        """The first step after ``step`` at which it comes into force or leaves it; None where there
        is none.
        """
        if step < self.start:
            return self.start
        stop = self.start + 1 if self.period is None else self.stop
        if stop is not None and step >= stop:
            return None
        if self.period is None or self.period == 1:
            return stop
        after = (
            step + 1
            if self.in_force(step)
            else step + self.period - (step - self.start) % self.period
        )
        return after if stop is None else min(after, stop)


@dataclass(frozen=True, kw_only=True)
class AtSettings(Intervention):
    """Other settings in the place of the run's: numbers, data, optimizer, loss."""

    @abstractmethod
    def changed(self, settings: Settings) -> Settings:
        """The settings with the change made. Raises ConfigError where it can't be."""


@dataclass(frozen=True, kw_only=True)
class InProgram(Intervention):
    """A change inside the compiled step."""

    @abstractmethod
    def compile_key(self) -> "InProgram":
        """Itself without range and values: what the program is compiled for. Equal forms share a
        program.
        """


@dataclass(frozen=True, kw_only=True)
class AtBatch(InProgram):
    """Another batch for the update."""

    @abstractmethod
    def batch(self, batch: Batch, arrays: Arrays) -> Batch:
        """The batch that is trained on."""


@dataclass(frozen=True, kw_only=True)
class AtSite(InProgram):
    """Another value at a site of the forward pass."""

    @property
    @abstractmethod
    def place(self) -> str:
        """The site's name."""

    @abstractmethod
    def value_at(self, value: Array, arrays: Arrays, forward: Forward) -> Array:
        """What goes on from the site."""


@dataclass(frozen=True, kw_only=True)
class AtGradient(InProgram):
    """Another gradient for the optimizer."""

    @abstractmethod
    def gradient(self, gradients: Params, params: Params, arrays: Arrays) -> Params:
        """The gradient that the optimizer is given."""


@dataclass(frozen=True, kw_only=True)
class AtParams(InProgram):
    """Other parameters after the update."""

    @abstractmethod
    def after(self, params: Params, before: Params, arrays: Arrays) -> Params:
        """The parameters that the update leaves, given those it gave and those it began from."""


def repeated(array: Array, seeds: tuple[int, ...]) -> Array:
    """The same for every seed."""
    return jax.numpy.broadcast_to(array, (len(seeds), *array.shape))
