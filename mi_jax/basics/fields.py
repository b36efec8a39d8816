"""The fields of settings: numbers that the compiled step takes as arguments, and fields that came
after runs had been stored.
"""

from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass, replace
from typing import Any

Numbers = Mapping[str, Any]
"""Settings that are traced arguments of the compiled step, by dotted name:
``{"optimizer.learning_rate": 1e-3}``.
"""


def sweepable(default: float | None, *, added: bool = False) -> Any:
    """A dataclass field holding a number that the compiled step takes as an argument, so that other
    values compile nothing.

    Where it is None the step has no such number. ``added``: see the function of that name.
    """
    return field(default=default, metadata={"sweepable": True, "added": added})


def added(default: Any) -> Any:
    """A dataclass field that came after runs had been stored: it is written only where it isn't
    this default.

    So experiments from before keep their JSON and their identity, and the default may never change.
    """
    return field(default=default, metadata={"added": True})


def sweepable_fields(settings: Any) -> tuple[str, ...]:
    """The names of a dataclass's own sweepable fields."""
    return tuple(f.name for f in fields(settings) if f.metadata.get("sweepable"))


def sweepable_numbers(settings: Any) -> dict[str, float]:
    """The sweepable numbers of a dataclass and of those nested in it, by dotted name; without those
    that are None.
    """
    numbers = {name: getattr(settings, name) for name in sweepable_fields(settings)}
    found = {name: float(value) for name, value in numbers.items() if value is not None}
    for f in fields(settings):
        part = getattr(settings, f.name)
        if is_dataclass(part):
            found |= {f"{f.name}.{name}": value for name, value in sweepable_numbers(part).items()}
    return found


def numbers_of(part: str, numbers: Numbers) -> dict[str, Any]:
    """The numbers of a part by the names that it knows them by.

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
    """The settings with these numbers, by dotted name, in the place of their own. Raises
    ConfigError where they are refused.
    """
    own = {name: value for name, value in numbers.items() if "." not in name}
    parts = {name.split(".")[0] for name in numbers if "." in name}
    return replace(
        settings,
        **own,
        **{
            part: with_numbers(getattr(settings, part), numbers_of(part, numbers)) for part in parts
        },
    )
