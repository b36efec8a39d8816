"""Frozen dataclasses to JSON and back. Each is stored with its registry name."""

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from operator import attrgetter
from typing import Any, get_args, get_origin, get_type_hints

import jax
import numpy as np

from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.basics.fields import old_names, stored_name

Registry = Mapping[str, type]
"""Classes that an experiment may consist of, by registry name. A user's own class needs no entry:
it is stored as ``module:Class``.
"""


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


def decode(record: Any, registry: Registry) -> Any:
    """Convert JSON back to settings: the inverse of ``encode``.

    Args:
        record: the JSON value.
        registry: classes by registry name.

    Raises:
        ConfigError: if a type or key is unknown, or a class cannot be imported here.
    """
    if isinstance(record, dict):
        settings = dict(record)
        cls = _class(settings.pop("type", None), registry)
        old, names = old_names(cls), {f.name for f in fields(cls)}
        settings = {old.get(str(key), str(key)): item for key, item in settings.items()}
        for key in settings:
            if key not in names:
                raise ConfigError(f"{cls.__name__} has no setting '{key}'; {nearest(key, names)}")
        return cls(**{key: decode(item, registry) for key, item in settings.items()})
    if isinstance(record, list):
        return tuple(decode(item, registry) for item in record)
    return record


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


def _class(name: str | None, registry: Registry) -> type:
    if name is not None and name in registry:
        return registry[name]
    if not isinstance(name, str) or ":" not in name:
        raise ConfigError(
            f"Unknown type {name!r}: it is neither registered nor named as module:Class;"
            f" {nearest(str(name), registry)}"
        )
    module, _, qualname = name.partition(":")
    try:
        return attrgetter(qualname)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"The class {name} cannot be imported here ({error}). Put its file on the Python path."
        ) from error
