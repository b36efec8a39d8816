"""Frozen dataclasses to JSON and back, every nested one with its registry name, unknown keys
refused.
"""

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
"""By registry name, the classes that an experiment may be made of. A user's own class goes as
``module:Class``.
"""


def encode(value: Any, registry: Registry) -> Any:
    """The JSON form: a dataclass becomes an object with its name under ``type``; a tuple a list; an
    int in a float field a float.

    A field that is marked as added later (``fields.added``) is left out where it has its default.

    Raises:
        ConfigError: for a value that JSON has no form for, or a class that no other process could
            import.
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
        f"{value!r} can't be stored: a setting is a number, a string, None, a tuple or a frozen"
        " dataclass"
    )


def decode(record: Any, registry: Registry) -> Any:
    """The value whose ``encode`` is ``record``.

    Raises:
        ConfigError: for an unknown type or key, or a class that can't be imported here.
    """
    if isinstance(record, dict):
        settings = dict(record)
        cls = _class(settings.pop("type", None), registry)
        old, known = old_names(cls), {f.name for f in fields(cls)}
        settings = {old.get(str(key), str(key)): item for key, item in settings.items()}
        for key in settings:
            if key not in known:
                raise ConfigError(f"{cls.__name__} has no setting '{key}'; {nearest(key, known)}")
        return cls(**{key: decode(item, registry) for key, item in settings.items()})
    if isinstance(record, list):
        return tuple(decode(item, registry) for item in record)
    return record


def frozen(value: Any) -> Any:
    """Lists and arrays as nested tuples, numbers of arrays as Python's: what can be hashed, and
    stored.
    """
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        value = np.asarray(value).tolist()
    if isinstance(value, Mapping):
        return {name: frozen(item) for name, item in value.items()}
    return tuple(frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def constructor(settings: Any) -> str:
    """The call that makes a dataclass, with what differs from its defaults."""
    given = [(field, getattr(settings, field.name)) for field in fields(settings)]
    told = [
        f"{field.name}={value!r}"
        for field, value in given
        if field.default is MISSING or value != field.default
    ]
    return f"{type(settings).__name__}({', '.join(told)})"


def digest(record: Any) -> str:
    """sha256 of a JSON value in canonical form."""
    return hashlib.sha256(
        json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two JSON forms differ: one line a setting, ``task.p: 59 there, 61 here``."""
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
    if get_origin(hint) is tuple and isinstance(value, tuple):
        hints = get_args(hint)
        each = hints[:1] * len(value) if hints[-1:] == (Ellipsis,) else hints
        return (
            tuple(_as_hinted(*pair) for pair in zip(value, each, strict=True))
            if len(value) == len(each)
            else value
        )
    is_int = isinstance(value, int) and not isinstance(value, bool)
    return (
        float(value)
        if is_int and float in (hint, *get_args(hint)) and int not in get_args(hint)
        else value
    )


def _name(cls: type, registry: Registry) -> str:
    for name, known in registry.items():
        if known is cls:
            return name
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise ConfigError(
            f"{cls.__name__} must be defined at the top of an importable module, so that a run can"
            " name it"
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def _class(name: str | None, registry: Registry) -> type:
    if name is not None and name in registry:
        return registry[name]
    if not isinstance(name, str) or ":" not in name:
        raise ConfigError(
            f"unknown type {name!r}; {nearest(str(name), registry)}, or module:Class for one's own"
        )
    module, _, qualname = name.partition(":")
    try:
        return attrgetter(qualname)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the class {name} can't be imported here ({error}); put its file on the Python path"
        ) from error
