"""Changing a setting while a network trains: numbers, data, loss, optimizer."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mi_jax.basics.errors import ConfigError, nearest, require
from mi_jax.basics.fields import numbers_of, sweepable_numbers, with_numbers
from mi_jax.basics.records import frozen
from mi_jax.contracts import Loss, Optimizer, Task
from mi_jax.interventions.places import AtSettings, Settings

_PARTS = ("task", "loss", "optimizer")


@dataclass(frozen=True)
class Change(AtSettings):
    """Sets one of the run's settings to another value while in force.

    A number that the compiled step takes as an argument compiles nothing. Another task draws its
    batches from the same key; it must have the same inputs. Where the optimizer's state has another
    structure, or the optimizer is another, a fresh one is begun. Readings stay those of the run's
    own task.

    Example:
        >>> Change(field="optimizer.weight_decay", value=0.3, start=400).in_force(400)
        True

    Attributes:
        field: the setting's dotted name, as in an override: ``optimizer.weight_decay``,
            ``task.fraction``, ``task.label_noise``; ``optimizer.name`` and ``loss.name`` put the
            defaults of another in place; ``task``, ``loss`` and ``optimizer`` a whole one.
        value: what it is in force.
    """

    field: str
    value: float | int | str | bool | tuple[Any, ...] | Task | Loss | Optimizer | None

    def __post_init__(self) -> None:
        super().__post_init__()
        told = (
            f"Change: field={self.field!r} must be a setting's dotted name, such as"
            " 'optimizer.weight_decay'"
        )
        require(isinstance(self.field, str), told)
        object.__setattr__(self, "value", frozen(self.value))
        if isinstance(self.value, (int, float)) and not isinstance(self.value, bool):
            # One number, one identity: 1 is stored as 1.0 is.
            object.__setattr__(self, "value", float(self.value))
            require(
                math.isfinite(self.value), f"Change({self.field}) to {self.value}: must be finite"
            )

    def changed(self, settings: Settings) -> Settings:
        """See ``AtSettings``."""
        part, _, name = self.field.partition(".")
        if part not in _PARTS:
            raise ConfigError(
                f"Change can't set '{self.field}'; {nearest(self.field, _known(settings))}"
            )
        if self.field == "optimizer" or self.field == "optimizer.name":
            settings = settings._replace(numbers={})
        if not name or name == "name":
            return _checked(self, settings, part, self._whole(settings, part))
        number = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        if number and self.field in {
            f"optimizer.{known}" for known in sweepable_numbers(settings.optimizer)
        }:
            value = float(self.value)  # pyright: ignore[reportArgumentType]
            numbers = {**settings.numbers, self.field: value}
            # The optimizer itself says which numbers it takes.
            with_numbers(settings.optimizer, numbers_of("optimizer", numbers))
            return settings._replace(numbers=numbers)
        if self.field not in _known(settings):
            raise ConfigError(
                f"Change can't set '{self.field}'; {nearest(self.field, _known(settings))}"
            )
        return _checked(self, settings, part, self._with(getattr(settings, part), name))

    def _with(self, settings: Any, name: str) -> Any:
        """The settings with one of them replaced. Raises ConfigError where they refuse it."""
        first, _, rest = name.partition(".")
        if rest:
            return replace(settings, **{first: self._with(getattr(settings, first), rest)})
        hint = get_type_hints(type(settings))[first]
        value = _as_hinted(self.value, hint)
        kind = hint.__name__ if hint in (int, float, str, bool) else hint
        require(
            _is_of(value, hint), f"Change({self.field}) to {self.value!r}: that setting is {kind}"
        )
        return replace(settings, **{first: value})

    def _whole(self, settings: Settings, part: str) -> Any:
        """The other task, loss or optimizer."""
        if self.field == part:
            kind = {"task": Task, "loss": Loss, "optimizer": Optimizer}[part]
            require(
                isinstance(self.value, kind),
                f"Change('{part}') must be of the type {kind.__name__}, not {self.value!r}",
            )
            return self.value
        known = settings.known.get(part, {})
        require(
            bool(known),
            f"Change can't set '{self.field}'; change settings of the {part} one by one",
        )
        told = f"Change: there is no {part} '{self.value}'; {nearest(str(self.value), known)}"
        require(isinstance(self.value, str) and self.value in known, told)
        return known[str(self.value)]()


def _known(settings: Settings) -> list[str]:
    """The dotted names that can be set."""
    return [name for part in _PARTS for name in (part, *_names(getattr(settings, part), part))]


def _names(settings: Any, prefix: str) -> Iterator[str]:
    for f in fields(settings):
        yield f"{prefix}.{f.name}"
        part = getattr(settings, f.name)
        if is_dataclass(part):
            yield from _names(part, f"{prefix}.{f.name}")


def _as_hinted(value: Any, hint: Any) -> Any:
    """A whole float as the int that a field asks for: stored numbers come back as floats."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return (
        int(value)
        if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds
        else value
    )


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's kind, as far as its annotation is one of those that settings
    have.
    """
    if get_origin(hint) in (Union, UnionType):
        return any(_is_of(value, kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return isinstance(value, str)  # the settings say themselves which are known
    kind = get_origin(hint) or hint
    if not isinstance(kind, type):
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _checked(change: Change, settings: Settings, part: str, value: Any) -> Settings:
    """The settings with a part replaced. Raises ConfigError for a task of another form."""
    if part == "task":
        same = value.inputs == settings.task.inputs and value.read == settings.task.read
        told = (
            f"Change({change.field}) to {change.value}: the model of this run doesn't read such a"
            " task; start a new run"
        )
        require(same and value.per_seed == settings.task.per_seed, told)
    return settings._replace(**{part: value})
