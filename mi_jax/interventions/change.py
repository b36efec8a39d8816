"""An intervention on the settings: numbers, data, loss, optimizer."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mi_jax.basics.errors import ConfigError, nearest, require
from mi_jax.basics.fields import (
    numbers_of,
    old_names,
    setting,
    sweepable_numbers,
    with_numbers,
    with_setting,
)
from mi_jax.basics.records import frozen
from mi_jax.contracts import Loss, Optimizer, Task
from mi_jax.interventions.places import AtSettings, Intervention, Settings

_PARTS = {"task": Task, "loss": Loss, "optimizer": Optimizer}
"""The parts of the settings that can be changed, and the type of each."""


@dataclass(frozen=True)
class Change(AtSettings):
    """Sets one of the run's settings to another value while in force.

    Changing a number that the compiled step takes as an argument compiles nothing. Another task
    draws its batches from the same key; it must have the same inputs. An optimizer of another
    class, or one whose state has another structure, begins with a fresh state. Measures keep
    reading the run's original task.

    Example:
        >>> Change(field="optimizer.weight_decay", value=0.3, start=400).in_force(400)
        True

    Attributes:
        field: the dotted name of the setting, as in an override: ``optimizer.weight_decay``,
            ``task.fraction``, ``task.label_noise``. ``optimizer.name`` and ``loss.name`` choose
            another one by registry name, with its default settings. ``task``, ``loss`` and
            ``optimizer`` replace the whole part by an object.
        value: the value of the setting while in force.
    """

    field: str
    value: float | int | str | bool | tuple[Any, ...] | Task | Loss | Optimizer | None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            isinstance(self.field, str),
            f"Change: field={self.field!r} must be the dotted name of a setting, such as"
            " 'optimizer.weight_decay'.",
        )
        object.__setattr__(self, "value", frozen(self.value))
        if _is_number(self.value):
            # One number has one identity: 1 is stored as 1.0 is.
            value = float(self.value)  # pyright: ignore[reportArgumentType]
            object.__setattr__(self, "value", value)
            require(math.isfinite(value), f"Change({self.field}) to {value}: must be finite.")

    def overwrites(self, earlier: Intervention, names: Collection[str]) -> bool:
        """Whether the setting of an earlier change is set again, or its whole part is replaced."""
        if not isinstance(earlier, Change):
            return False
        part = earlier.field.partition(".")[0]
        return self.field in (earlier.field, part, f"{part}.name")

    def changed(self, settings: Settings) -> Settings:
        """The settings with the change made.

        Raises:
            ConfigError: for an unknown setting, or a value that the setting refuses.
        """
        field = _current_name(settings, self.field)
        part, _, name = field.partition(".")
        if part not in _PARTS:
            raise self._unknown(settings)
        if field in ("optimizer", "optimizer.name"):
            settings = settings._replace(numbers={})
        if not name or name == "name":
            return self._with_part(settings, part, self._whole(settings, part))
        numbers = {f"optimizer.{number}" for number in sweepable_numbers(settings.optimizer)}
        if field in numbers and _is_number(self.value):
            value = float(self.value)  # pyright: ignore[reportArgumentType]
            changed = {**settings.numbers, field: value}
            # Building the optimizer with these numbers checks them: it knows its own bounds.
            with_numbers(settings.optimizer, numbers_of("optimizer", changed))
            return settings._replace(numbers=changed)
        if field not in _field_names(settings):
            raise self._unknown(settings)
        value = self._checked(getattr(settings, part), name)
        return self._with_part(settings, part, with_setting(getattr(settings, part), name, value))

    def _unknown(self, settings: Settings) -> ConfigError:
        return ConfigError(
            f"Change cannot set '{self.field}'; {nearest(self.field, _field_names(settings))}"
        )

    def _checked(self, part: Any, name: str) -> Any:
        """The value as the setting of a dotted name takes it.

        Raises:
            ConfigError: if it is of another type.
        """
        parent, _, last = name.rpartition(".")
        owner = setting(part, parent) if parent else part
        hint = get_type_hints(type(owner))[last]
        value = _whole_where_asked(self.value, hint)
        kind = hint.__name__ if hint in (int, float, str, bool) else hint
        require(
            _is_of(value, hint),
            f"Change({self.field}) to {self.value!r}: must be of the type {kind}.",
        )
        return value

    def _whole(self, settings: Settings, part: str) -> Any:
        """The other task, loss or optimizer, given itself or by its registry name."""
        if "." not in self.field:
            kind = _PARTS[part]
            require(
                isinstance(self.value, kind),
                f"Change('{part}') must be of the type {kind.__name__}, not {self.value!r}.",
            )
            return self.value
        registered = settings.known.get(part, {})
        if not registered:
            raise ConfigError(
                f"Change cannot set '{self.field}'. Change the settings of the {part} one at a"
                " time."
            )
        if not isinstance(self.value, str) or self.value not in registered:
            raise ConfigError(
                f"Change: there is no {part} '{self.value}'; {nearest(str(self.value), registered)}"
            )
        return registered[self.value]()

    def _with_part(self, settings: Settings, part: str, value: Any) -> Settings:
        """The settings with a part replaced.

        Raises:
            ConfigError: for a task that the run's model does not read.
        """
        if part == "task":
            task = settings.task
            if (value.inputs, value.read, value.per_seed) != (
                task.inputs,
                task.read,
                task.per_seed,
            ):
                raise ConfigError(
                    f"Change({self.field}) to {self.value}: the model of this run cannot read such"
                    " a task. Start a new run."
                )
        return settings._replace(**{part: value})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _current_name(settings: Settings, field: str) -> str:
    """The dotted name with old names of fields replaced.

    Without a warning: stored runs hold old names, and keep them as part of their identity.
    """
    part, *names = field.split(".")
    owner = getattr(settings, part, None)
    current = [part]
    for name in names:
        if is_dataclass(owner):
            name = old_names(owner).get(name, name)
        owner = getattr(owner, name, None)
        current.append(name)
    return ".".join(current)


def _field_names(settings: Settings) -> list[str]:
    """The dotted names that can be set."""
    return [name for part in _PARTS for name in (part, *_names(getattr(settings, part), part))]


def _names(settings: Any, prefix: str) -> Iterator[str]:
    for f in fields(settings):
        yield f"{prefix}.{f.name}"
        part = getattr(settings, f.name)
        if is_dataclass(part):
            yield from _names(part, f"{prefix}.{f.name}")


def _whole_where_asked(value: Any, hint: Any) -> Any:
    """A whole float as the int that a field asks for: stored numbers come back as floats."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return (
        int(value)
        if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds
        else value
    )


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value has a field's type, for the annotations that settings use."""
    if get_origin(hint) in (Union, UnionType):
        return any(_is_of(value, kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return isinstance(value, str)  # the settings themselves check which strings are allowed
    kind = get_origin(hint) or hint
    if not isinstance(kind, type):
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
