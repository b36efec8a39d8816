"""Frozen dataclasses to JSON and back. Each is stored with its registry name."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import jax
import numpy as np

from mi_jax.basics.errors import ConfigError, MiJaxError, nearest
from mi_jax.basics.fields import old_names, stored_name
from mi_jax.basics.modules import find_class

Registry = Mapping[str, type]
"""Classes that an experiment may consist of, by registry name. A user's own class needs no entry:
it is stored as ``module:Class``.
"""

_REFUSALS = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
"""Errors by which a class refuses settings that it does not check itself."""

_LARGEST_INT = 2**63 - 1
"""Largest whole number that a setting of mi_jax may be."""


def encode(value: Any, registry: Registry) -> Any:
    """Convert settings to JSON.

    A dataclass becomes an object with its name under ``type``, and a tuple becomes a list. An int
    in a float field becomes a float, so that 1 and 1.0 have the same hash. A field marked
    ``fields.added`` is left out if it has its default.

    Args:
        value: the settings.
        registry: classes by registry name.

    Raises:
        ConfigError: if JSON cannot represent the value, or no other process could import its class.
    """
    if is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        written = [f for f in fields(value) if not _left_out(f, value)]
        record = {
            stored_name(f): encode(_as_hinted(getattr(value, f.name), hints[f.name]), registry)
            for f in written
        }
        return {"type": _name(type(value), registry), **record}
    if isinstance(value, (list, tuple)):
        return [encode(item, registry) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(
        f"{value!r} cannot be stored. A setting is a number, a string, None, a tuple or a frozen"
        " dataclass."
    )


def decode(record: Any, registry: Registry, expected: Any = Any) -> Any:
    """Convert JSON back to settings: the inverse of ``encode``.

    Nothing is called but frozen dataclasses, each of the type that the field which holds it asks
    for, and no module of the user is imported (see ``basics.modules``). Values of mi_jax's own
    fields are checked against their types.

    Args:
        record: the JSON value.
        registry: classes by registry name.
        expected: the type of the settings. ``Any``: any registered class, or one that is a subclass
            of a registered class's base.

    Raises:
        NotAllowedError: if a class of a module that is not imported is named.
        ConfigError: if a type or key is unknown, a class is not a settings class of the type that
            is expected, or a value is refused.

    Example:
        >>> from dataclasses import make_dataclass
        >>> Sum = make_dataclass("Sum", [("p", int)], frozen=True)
        >>> decode({"type": "sum", "p": 7}, {"sum": Sum})
        Sum(p=7)
    """
    return _decoded(record, registry, expected, "settings")


def _decoded(record: Any, registry: Registry, expected: Any, path: str) -> Any:
    if isinstance(record, dict):
        return _constructed(dict(record), registry, expected, path)
    if isinstance(record, list):
        return tuple(
            _decoded(item, registry, _item_hint(expected, i), f"{path}[{i}]")
            for i, item in enumerate(record)
        )
    return record


def _constructed(settings: dict[str, Any], registry: Registry, expected: Any, path: str) -> Any:
    """The dataclass that a JSON object describes."""
    cls = _class(settings.pop("type", None), registry)
    _check_class(cls, expected, registry, path)
    old, hints = old_names(cls), get_type_hints(cls)
    names = {f.name for f in fields(cls)}
    is_own = cls.__module__.split(".")[0] != "mi_jax"
    arguments: dict[str, Any] = {}
    for stored, item in settings.items():
        key = old.get(stored, stored)
        if key not in names:
            raise ConfigError(f"{cls.__name__} has no setting '{key}'; {nearest(key, names)}")
        # The types that a user gave his own fields are his own affair.
        if not is_own and not _conforms(item, hints[key]):
            raise ConfigError(
                f"{path}.{key}={_shown(item)} has the wrong type: {cls.__name__} takes"
                f" {_type_name(hints[key])}."
            )
        arguments[key] = _decoded(item, registry, hints[key], f"{path}.{key}")
    try:
        return cls(**arguments)
    except MiJaxError:
        raise
    except _REFUSALS as error:
        raise ConfigError(
            f"{path} cannot be {cls.__name__} settings ({type(error).__name__}: {error})."
        ) from error


def _check_class(cls: Any, expected: Any, registry: Registry, path: str) -> None:
    """Raise ConfigError unless this is a frozen dataclass of a type that is expected."""
    allowed = _classes(expected)
    if expected is Any:
        # The contract of a registered class is the class that it was derived from.
        bases = (base for known in registry.values() for base in known.__mro__)
        allowed = cast(tuple[type, ...], tuple({base for base in bases if is_dataclass(base)}))
    parameters = getattr(cls, "__dataclass_params__", None) if isinstance(cls, type) else None
    if parameters is None or not parameters.frozen or not issubclass(cls, allowed):
        wanted = "settings" if expected is Any else _type_name(expected)
        name = getattr(cls, "__name__", type(cls).__name__)
        raise ConfigError(
            f"{path} names {name}, which is not a frozen dataclass of the type that belongs there:"
            f" {wanted}. Nothing was called."
        )


def _classes(hint: Any) -> tuple[type, ...]:
    """The dataclasses that a type hint allows."""
    if isinstance(hint, type) and get_origin(hint) is None:
        return (hint,) if is_dataclass(hint) else ()
    if get_origin(hint) in (UnionType, Union):
        return tuple(cls for part in get_args(hint) for cls in _classes(part))
    return ()


def _item_hint(hint: Any, index: int) -> Any:
    """The type hint of an item of a tuple."""
    if get_origin(hint) in (UnionType, Union):
        inner = [_item_hint(part, index) for part in get_args(hint) if get_args(part)]
        return inner[0] if len(inner) == 1 else Any
    arguments = get_args(hint)
    if len(arguments) == 1 or arguments[-1:] == (Ellipsis,):
        return arguments[0]
    return arguments[index] if index < len(arguments) else Any


def _conforms(value: Any, hint: Any) -> bool:
    """Whether a JSON value can be of a type; True for hints that say nothing of JSON values."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        return any(_conforms(value, part) for part in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is tuple:
        if not isinstance(value, list):
            return False
        if arguments[-1:] == (Ellipsis,):
            return all(_conforms(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_conforms, value, arguments))
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return type(value) is int and abs(value) <= _LARGEST_INT
    if hint in (bool, str):
        return type(value) is hint
    return not is_dataclass(hint) or isinstance(value, dict)


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def frozen(value: Any) -> Any:
    """Convert lists and arrays to nested tuples of Python numbers, which can be hashed and stored.

    Dicts keep their keys; their values are converted.
    """
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        value = np.asarray(value).tolist()
    if isinstance(value, Mapping):
        return {name: frozen(item) for name, item in value.items()}
    return tuple(frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def constructor(settings: Any) -> str:
    """Text of the call that makes a dataclass, with the arguments that differ from the defaults."""
    values = [(field, getattr(settings, field.name)) for field in fields(settings)]
    arguments = [
        f"{field.name}={value!r}"
        for field, value in values
        if field.default is MISSING or value != field.default
    ]
    return f"{type(settings).__name__}({', '.join(arguments)})"


def digest(record: Any) -> str:
    """SHA-256 of a JSON value in canonical form: sorted keys, no spaces."""
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """List where two JSON records differ, one line per setting: ``task.p: 59 there, 61 here``.

    Args:
        old: the record called "there".
        new: the record called "here".
        path: dotted name of the records, put before the names of settings.
    """
    if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type"):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {_short(old)} there, {_short(new)} here"]


def _short(value: Any) -> str:
    return value["type"] if isinstance(value, dict) and "type" in value else json.dumps(value)


def _left_out(f: Field[Any], settings: Any) -> bool:
    return bool(f.metadata.get("added")) and getattr(settings, f.name) == f.default


def _as_hinted(value: Any, hint: Any) -> Any:
    """The value with ints as floats where its type hint allows floats and no ints."""
    if get_origin(hint) is tuple and isinstance(value, tuple):
        hints = get_args(hint)
        each = hints[:1] * len(value) if hints[-1:] == (Ellipsis,) else hints
        if len(value) != len(each):
            return value
        return tuple(_as_hinted(*pair) for pair in zip(value, each, strict=True))
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if is_int and float in (hint, *get_args(hint)) and int not in get_args(hint):
        return float(value)
    return value


def _name(cls: type, registry: Registry) -> str:
    for name, registered in registry.items():
        if registered is cls:
            return name
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise ConfigError(
            f"{cls.__name__} must be defined at the top of an importable module, so that a run can"
            " name it. Move the class into such a module."
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def _class(name: Any, registry: Registry) -> Any:
    """The registered class, or the object of an imported module, that a stored name means."""
    if isinstance(name, str) and name in registry:
        return registry[name]
    if not isinstance(name, str) or ":" not in name:
        raise ConfigError(
            f"Unknown type {name!r}: it is neither registered nor named as module:Class;"
            f" {nearest(str(name), registry)}"
        )
    return find_class(name)
