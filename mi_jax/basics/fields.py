"""Fields of settings: sweepable numbers, fields added or renamed later, access by dotted name."""

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, replace
from typing import Any, NamedTuple, TypeVar, overload

from mi_jax.basics.errors import ConfigError, nearest

Numbers = Mapping[str, Any]
"""Settings that the compiled step takes as traced arguments, by dotted name:
``{"optimizer.learning_rate": 1e-3}``.
"""

LARGEST_FLOAT32 = 3.4028235e38
"""The largest number, rounded, that the compiled step can take."""


class Bounds(NamedTuple):
    """Bounds of a number; None if it has none on that side.

    Attributes:
        minimum: smallest value allowed.
        maximum: largest value allowed.
        above: value that the number must exceed.
        below: value that the number must stay under.
    """

    minimum: float | int | None = None
    maximum: float | int | None = None
    above: float | int | None = None
    below: float | int | None = None

    def contain(self, value: Any) -> bool:
        """Whether a number is finite, fits float32 and lies within the bounds; False for NaN."""
        return (
            -LARGEST_FLOAT32 <= value <= LARGEST_FLOAT32
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits: list[str] = []
        if self.minimum is not None:
            limits.append(f"at least {self.minimum:g}")
        if self.above is not None:
            limits.append(f"above {self.above:g}")
        if self.maximum is not None:
            limits.append(f"at most {self.maximum:g}")
        if self.below is not None:
            limits.append(f"less than {self.below:g}")
        if self.maximum is not None or self.below is not None:
            return " and ".join(limits)
        if not limits:
            return "a finite number"
        return f"a finite number {'of ' if self.above is None else ''}{' and '.join(limits)}"


def sweepable(
    default: float | None,
    *,
    added: bool = False,
    minimum: float | int | None = None,
    maximum: float | int | None = None,
    above: float | int | None = None,
    below: float | int | None = None,
) -> Any:
    """Make a dataclass field for a number that the compiled step takes as an argument.

    Other values of the field compile nothing. If the field is None, the step has no such number.
    The bounds live here, in the field; ``check_bounds`` enforces them.

    Args:
        default: value of the field if none is given; only a field whose default is None may be
            None.
        added: whether the field came after runs had been stored: see the function ``added``.
        minimum: smallest value allowed.
        maximum: largest value allowed.
        above: value that the number must exceed.
        below: value that the number must stay under.
    """
    bounds = Bounds(minimum, maximum, above, below)
    return field(default=default, metadata={"sweepable": True, "added": added, "bounds": bounds})


def check_bounds(settings: Any) -> None:
    """Refuse a dataclass whose own sweepable fields leave their bounds.

    Every value must also be finite and fit float32, in which the compiled step computes.

    Example:
        >>> from dataclasses import make_dataclass
        >>> SGD = make_dataclass("SGD", [("momentum", float, sweepable(0.0, minimum=0, below=1))])
        >>> check_bounds(SGD(momentum=1.5))
        Traceback (most recent call last):
        mi_jax.basics.errors.ConfigError: momentum=1.5: must be at least 0 and less than 1.

    Raises:
        ConfigError: if a field is out of its bounds, NaN, infinite, no number, or None if its
            default is not None.
    """
    for f in fields(settings):
        if not f.metadata.get("sweepable"):
            continue
        value, optional = getattr(settings, f.name), f.default is None
        if value is None and optional:
            continue
        bounds: Bounds = f.metadata["bounds"]
        try:
            allowed = bounds.contain(value)
        except TypeError:  # not a number
            allowed = False
        if not allowed:
            choices = f"{bounds}, or None for none" if optional else f"{bounds}"
            raise ConfigError(
                f"{f.name}={value}: must be {choices}."
                + (" It must fit float32, up to 3.4e+38." if _too_large(value) else "")
            )


def _too_large(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) > LARGEST_FLOAT32


def added(default: Any) -> Any:
    """Make a dataclass field that was added after runs had been stored.

    The field is stored only if it differs from its default, so that older experiments keep their
    JSON and their identity. The default must therefore never change.
    """
    return field(default=default, metadata={"added": True})


def renamed(old: str, default: Any = MISSING, **options: Any) -> Any:
    """Make a dataclass field that has another name in stored runs and in older code.

    The field is stored under its old name, so that experiments keep their identity. With the class
    decorator ``accepts_old_names``, the old name still works in code, with a warning.

    Args:
        old: the old name.
        default: default value, as for ``dataclasses.field``.
        options: other arguments of ``dataclasses.field``.
    """
    return field(default=default, metadata={"old_name": old}, **options)


def old_names(cls: Any) -> dict[str, str]:
    """New name of each renamed field of a dataclass, by its old name."""
    return {f.metadata["old_name"]: f.name for f in fields(cls) if "old_name" in f.metadata}


def stored_name(f: Field[Any]) -> str:
    """Name under which a field is stored: its old name if it has one, else its name."""
    return f.metadata.get("old_name", f.name)


def warn_old_name(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that a name of mi_jax 0.1 was used.

    Args:
        old: the old name, as the user wrote it.
        new: what to write instead.
        stacklevel: frames between this function and the user's code, as for ``warnings.warn``.
    """
    warnings.warn(
        f"{old} is now {new}. The old name will be removed in mi_jax 0.3.",
        DeprecationWarning,
        stacklevel=stacklevel,
    )


_T = TypeVar("_T")


@overload
def accepts_old_names(cls: type[_T]) -> type[_T]: ...


@overload
def accepts_old_names(**extra: str) -> Callable[[type[_T]], type[_T]]: ...


def accepts_old_names(cls: Any = None, **extra: str) -> Any:
    """Class decorator that accepts old names of fields, as keywords and as attributes.

    Args:
        cls: a dataclass, whose ``renamed`` fields know their old names, or a NamedTuple.
        extra: new name of each further field by its old name, as for the fields of a NamedTuple.
    """
    if cls is None:
        return functools.partial(accepts_old_names, **extra)
    names = {**(old_names(cls) if is_dataclass(cls) else {}), **extra}
    owner: Any = cls
    name = owner.__name__
    method = "__new__" if issubclass(owner, tuple) else "__init__"
    make = getattr(owner, method)

    @functools.wraps(make)
    def with_old_names(self: Any, *arguments: Any, **settings: Any) -> Any:
        for old, new in names.items():
            if old in settings:
                warn_old_name(f"{name}({old}=...)", f"{new}=")
                settings[new] = settings.pop(old)
        return make(self, *arguments, **settings)

    setattr(cls, method, with_old_names)
    for old, new in names.items():
        setattr(cls, old, _old_attribute(name, old, new))
    return cls


def _old_attribute(owner: str, old: str, new: str) -> property:
    def read(self: Any) -> Any:
        warn_old_name(f"{owner}.{old}", f".{new}")
        return getattr(self, new)

    return property(read, doc=f"Old name of ``{new}``.")


def setting(settings: Any, name: str) -> Any:
    """Value of a setting.

    Args:
        settings: a dataclass, whose fields may be dataclasses.
        name: dotted name of the setting.

    Raises:
        ConfigError: if there is no such setting.

    Example:
        >>> from dataclasses import make_dataclass
        >>> Task = make_dataclass("Task", [("p", int)])
        >>> setting(make_dataclass("Experiment", [("task", Task)])(Task(59)), "task.p")
        59
    """
    for part, first in _path(settings, name):
        settings = getattr(part, first)
    return settings


def with_setting(settings: Any, name: str, value: Any) -> Any:
    """Copy settings with one of them replaced.

    Args:
        settings: a dataclass, whose fields may be dataclasses.
        name: dotted name of the setting.
        value: its new value.

    Raises:
        ConfigError: if there is no such setting, or the value is refused.
    """
    for part, first in reversed(_path(settings, name)):
        value = replace(part, **{first: value})
    return value


def _path(settings: Any, name: str) -> list[tuple[Any, str]]:
    """Pairs (dataclass, name of its field) along a dotted name, with old names replaced."""
    path: list[tuple[Any, str]] = []
    for first in name.split("."):
        names = (
            [f.name for f in fields(settings)]
            if is_dataclass(settings) and not isinstance(settings, type)
            else []
        )
        old = old_names(settings) if names else {}
        if first in old:
            warn_old_name(f"the setting {name}", f"{old[first]}", stacklevel=4)
            first = old[first]
        if first not in names:
            raise ConfigError(f"There is no setting '{name}' here; {nearest(first, names)}")
        path.append((settings, first))
        settings = getattr(settings, first)
    return path


def sweepable_fields(settings: Any) -> tuple[str, ...]:
    """Names of a dataclass's own sweepable fields."""
    return tuple(f.name for f in fields(settings) if f.metadata.get("sweepable"))


def sweepable_numbers(settings: Any) -> dict[str, float]:
    """Sweepable numbers of a dataclass and of the dataclasses in its fields, by dotted name.

    Fields that are None are left out.
    """
    values = {name: getattr(settings, name) for name in sweepable_fields(settings)}
    numbers = {name: float(value) for name, value in values.items() if value is not None}
    for f in fields(settings):
        part = getattr(settings, f.name)
        if is_dataclass(part):
            nested = sweepable_numbers(part)
            numbers |= {f"{f.name}.{name}": value for name, value in nested.items()}
    return numbers


def numbers_of(part: str, numbers: Numbers) -> dict[str, Any]:
    """Select the numbers of one part, by their names within that part.

    Args:
        part: name of the field that holds the part.
        numbers: numbers by dotted name.

    Example:
        >>> numbers_of("filter", {"learning_rate": 1e-3, "filter.lamb": 2.0})
        {'lamb': 2.0}
    """
    prefix = f"{part}."
    return {
        name.removeprefix(prefix): value
        for name, value in numbers.items()
        if name.startswith(prefix)
    }


def with_numbers(settings: Any, numbers: Numbers) -> Any:
    """Copy settings with some of their numbers replaced.

    Args:
        settings: a dataclass, whose fields may be dataclasses.
        numbers: new values by dotted name.

    Raises:
        ConfigError: if a number is refused.
    """
    changed = {name: value for name, value in numbers.items() if "." not in name}
    parts = {name.split(".")[0] for name in numbers if "." in name}
    changed |= {
        part: with_numbers(getattr(settings, part), numbers_of(part, numbers)) for part in parts
    }
    return replace(settings, **changed)
