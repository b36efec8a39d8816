"""Base classes of interventions: one change to training at one named place, for a range of updates.

The five places are ``AtSettings`` (numbers, data, loss, optimizer), ``AtBatch``, ``AtSite``,
``AtGradient`` and ``AtParams``. A new intervention derives from the class of the place where it
acts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import ConfigError, whole
from mi_jax.basics.fields import Numbers, accepts_old_names, warn_old_name
from mi_jax.contracts import Batch, Inputs, Loss, Model, Optimizer, Task
from mi_jax.models.taps import capture

Arrays = Mapping[str, Any]
"""The arrays that an intervention prepared, by name. They have a leading seed axis, except inside
the compiled step, which sees the arrays of one seed.
"""

LoadParams = Callable[[str | None, int], Params]
"""Loads the parameters of another run: (path of the run, step) -> parameters, leading axis seed.
The path None stands for the run that was forked. Raises RunError if they cannot be read.
"""


def value_field(default: Any = MISSING, *, neutral: Any = MISSING, added: bool = False) -> Any:
    """Mark a dataclass field of an intervention whose value reaches the program as an array.

    The program is compiled with the neutral value in its place, so that interventions which differ
    in this field alone share one program. The methods that run inside the program (``batch``,
    ``value_at``, ``gradient``, ``after``) must therefore never read a marked field: ``prepare``
    turns it into arrays, and they read those. ``period`` may depend on it.

    Args:
        default: the field's default; without one the field is required.
        neutral: the value in the compile key; the default if it is not given.
        added: whether the field was added after runs had been stored (see ``fields.added``).

    Example:
        >>> @dataclass(frozen=True)
        ... class Shift(AtBatch):
        ...     by: int = value_field(neutral=0)
        ...
        ...     def batch(self, batch: Batch, arrays: Arrays) -> Batch:
        ...         return batch._replace(inputs=batch.inputs + arrays["by"])
        >>> Shift(3, start=10).compile_key()
        Shift(start=0, stop=None, by=0)
    """
    metadata = {"neutral": default if neutral is MISSING else neutral, "added": added}
    return field(default=default, metadata=metadata)


@accepts_old_names(elsewhere="load_params")
class CheckContext(NamedTuple):
    """The run that an intervention is checked against, before training.

    Attributes:
        task: the run's task.
        model: the run's model.
        shapes: the shape of every parameter by dotted name, without the seed axis.
        batch: the shapes of one batch.
        load_params: loads the parameters of other runs.
    """

    task: Task
    model: Model
    shapes: Mapping[str, tuple[int, ...]]
    batch: Batch
    load_params: LoadParams


class Forward(NamedTuple):
    """The forward pass of one update, for interventions at its sites.

    Attributes:
        model: the run's model.
        apply: the model's forward pass, by the route that the run is trained through.
        inputs: the inputs of the batch.
        positions: the positions that the task reads.
    """

    model: Model
    apply: Callable[..., Array]
    inputs: Any
    positions: tuple[int, ...]

    def dims(self, name: str) -> tuple[str, ...]:
        """Names of the dimensions of a site's value."""
        return next(site.dims for site in self.model.sites if site.name == name)

    def activation(self, params: Params, name: str) -> Array:
        """The activation at a site for the same inputs under other parameters.

        Args:
            params: the other parameters of this model.
            name: the name of the site.
        """
        return capture(self.apply, [name])(params, self.inputs, positions=self.positions)[1][name]


@accepts_old_names(elsewhere="load_params")
class PrepareContext(NamedTuple):
    """The material from which an intervention makes its arrays.

    Attributes:
        seeds: the run's seeds.
        params: the run's parameters before the first update that is changed, leading axis seed.
            If ``reads_weights`` is False their values are undefined, and they may be shapes.
        initial: gives the parameters of step 0, leading axis seed.
        model: the run's model.
        inputs: the description of the task's inputs.
        load_params: loads the parameters of other runs.
    """

    seeds: tuple[int, ...]
    params: Params
    initial: Callable[[], Params]
    model: Model
    inputs: Inputs
    load_params: LoadParams


class Settings(NamedTuple):
    """The settings of one update, with the interventions in force applied.

    Attributes:
        task: the task that batches are drawn from.
        loss: the loss that is minimised.
        optimizer: the optimizer.
        numbers: traced numbers that replace the optimizer's own, by dotted name.
        known: the registered losses and optimizers, by part ("loss", "optimizer") and name; each
            call gives one with default settings.
    """

    task: Task
    loss: Loss
    optimizer: Optimizer
    numbers: Numbers
    known: Mapping[str, Mapping[str, Callable[[], Any]]]


@dataclass(frozen=True, kw_only=True)
class Intervention(ABC):  # noqa: B024 (the abstract methods depend on the place)
    """One change to training at one named place, for updates ``start`` <= step < ``stop``.

    Interventions at the settings replace settings. All others are part of the compiled program, one
    program for each set of them in force; their values reach it as arrays. The trainer ends a chunk
    where an intervention comes into force or leaves it, so steps outside the range run the program
    without it.

    Attributes:
        start: the first update that is changed, counted from 0.
        stop: the first update that is no longer changed; None: until the end of the run.
    """

    start: int = 0
    stop: int | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept the name ``rhythm`` of mi_jax 0.1 for ``period``, with a warning."""
        super().__init_subclass__(**options)
        if "rhythm" in vars(cls) and "period" not in vars(cls):
            warn_old_name(f"{cls.__name__}.rhythm", "period")
            cls.period = property(lambda self: self.rhythm)  # pyright: ignore

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", whole("start", self.start))
        object.__setattr__(self, "stop", None if self.stop is None else whole("stop", self.stop))
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise ConfigError(
                f"The intervention's range is empty: start={self.start}, stop={self.stop}. Choose"
                " 0 <= start < stop, or stop=None for the end of the run."
            )

    @property
    def period(self) -> int | None:
        """Apply every ``period`` updates of the range; None: once, at the first."""
        return 1

    @property
    def reads_weights(self) -> bool:
        """Whether the arrays depend on the run's parameters at the first update that is changed.

        Where they do not, they are prepared before training.
        """
        return False

    def check(self, context: CheckContext) -> None:
        """Check, before training, that the intervention fits the run.

        Raises:
            ConfigError: if it does not fit the task, the model or the parameters.
            RunError: if another run that it needs cannot be read.
        """
        return

    def prepare(self, context: PrepareContext) -> dict[str, Any]:
        """Make the intervention's arrays: by name, each with a leading seed axis.

        Called once per run; the arrays are stored in it. Empty if the intervention has none.
        """
        return {}

    def overwrites(self, earlier: "Intervention", names: Collection[str]) -> bool:
        """Whether this intervention undoes everything that an earlier one did in the same update.

        An intervention that is undone at each of its updates has no effect, and is refused.

        Args:
            earlier: an intervention that acts before this one.
            names: the dotted names of all of the run's parameters.
        """
        return False

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
        """The first step after ``step`` at which the intervention comes into force or leaves it.

        None if there is no such step.
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
    """A change of the run's settings: numbers, data, loss, optimizer."""

    @abstractmethod
    def changed(self, settings: Settings) -> Settings:
        """The settings with the change made. Raises ConfigError if it is invalid."""


@dataclass(frozen=True, kw_only=True)
class InProgram(Intervention):
    """A change inside the compiled step."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept the name ``form`` of mi_jax 0.1 for ``compile_key``, with a warning."""
        super().__init_subclass__(**options)
        if "form" in vars(cls) and "compile_key" not in vars(cls):
            warn_old_name(f"{cls.__name__}.form", "compile_key")
            cls.compile_key = vars(cls)["form"]

    def compile_key(self) -> "InProgram":
        """The intervention that the program is compiled for; equal keys share a program.

        It has no range, and a neutral value in each field marked with ``value_field``. A field that
        is not marked stays in the key: the result is correct whatever the methods read, but each of
        its values compiles a program of its own.
        """
        neutral = {f.name: f.metadata["neutral"] for f in fields(self) if "neutral" in f.metadata}
        return replace(self, **{**neutral, "start": 0, "stop": None})


@dataclass(frozen=True, kw_only=True)
class AtBatch(InProgram):
    """A change of the batch."""

    @abstractmethod
    def batch(self, batch: Batch, arrays: Arrays) -> Batch:
        """The batch that is trained on.

        Args:
            batch: the batch that the task drew.
            arrays: the arrays of ``prepare`` for one seed.
        """


@dataclass(frozen=True, kw_only=True)
class AtSite(InProgram):
    """A change of the value at one site of the forward pass."""

    @property
    @abstractmethod
    def place(self) -> str:
        """The name of the site."""

    @abstractmethod
    def value_at(self, value: Array, arrays: Arrays, forward: Forward) -> Array:
        """The value that the forward pass continues with.

        Args:
            value: the value at the site.
            arrays: the arrays of ``prepare`` for one seed.
            forward: the forward pass of this update.
        """


@dataclass(frozen=True, kw_only=True)
class AtGradient(InProgram):
    """A change of the gradient, before the optimizer sees it."""

    @abstractmethod
    def gradient(self, gradients: Params, params: Params, arrays: Arrays) -> Params:
        """The gradient that the optimizer is given.

        Args:
            gradients: the gradient of the loss.
            params: the parameters before the update.
            arrays: the arrays of ``prepare`` for one seed.
        """


KEEPS, REPLACES, CHANGES = 0, 1, 2
"""The stages of interventions on parameters, in the order in which they act: those that take the
optimizer's update back, those that replace values, and those that change the values left there.
"""


@dataclass(frozen=True, kw_only=True)
class AtParams(InProgram):
    """A change of the parameters after the update.

    Interventions of an earlier ``stage`` act first, wherever they stand in the list; those of one
    stage act in the order of the list.
    """

    stage: ClassVar[int] = CHANGES
    """When it acts: KEEPS, REPLACES or CHANGES."""

    def fixed(self, params: Params) -> Collection[str]:
        """The dotted names of the parameters whose values the intervention determines itself.

        Where the optimizer holds a norm, the other parameters are rescaled to hold it.

        Args:
            params: the parameters.
        """
        return ()

    @abstractmethod
    def after(self, params: Params, before: Params, arrays: Arrays) -> Params:
        """The parameters that training continues with.

        Args:
            params: the parameters after the optimizer's update.
            before: the parameters before it.
            arrays: the arrays of ``prepare`` for one seed.
        """


def repeated(array: Array, seeds: tuple[int, ...]) -> Array:
    """One array repeated for every seed: leading axis seed.

    Args:
        array: the array of one seed.
        seeds: the run's seeds.
    """
    return jnp.broadcast_to(array, (len(seeds), *array.shape))
