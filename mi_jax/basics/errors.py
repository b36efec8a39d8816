"""Errors that a user can mend. Each says what is wrong, what was given, and what to do."""

import difflib
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any


class MiJaxError(Exception):
    """Base class of these errors. The command line prints their message without a traceback."""


class ConfigError(MiJaxError, ValueError):
    """An invalid setting. It is refused where it enters, before anything is built or written."""


class NotAllowedError(ConfigError):
    """Settings that name classes of a user's modules which this process has not imported.

    Attributes:
        modules: names of the modules.
        recorded: SHA-256 of each module's source file, as the run recorded it.
    """

    def __init__(self, message: str, modules: Sequence[str], recorded: Mapping[str, str]):
        super().__init__(message)
        self.modules = tuple(modules)
        self.recorded = dict(recorded)


class RunError(MiJaxError, RuntimeError):
    """A run directory that cannot be opened, resumed or written as asked."""


class DamagedError(RunError):
    """Stored data with a wrong hash or layout. The message names the damaged segment."""


class MeasureError(MiJaxError, ValueError):
    """An unknown measure, or one that needs what the model or the task does not have."""


class WeightsError(MiJaxError, ValueError):
    """A file of weights that does not fit the model."""


class Interrupted(MiJaxError):
    """Training was stopped by a signal, after all steps done so far had been saved."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest allowed names, or all if none is near.

    Args:
        name: the unknown name.
        allowed: the names that are allowed.

    Example:
        >>> nearest("mlp.pots", ["mlp.post", "mlp.pre", "attn.z"])
        'did you mean mlp.post, mlp.pre?'
    """
    allowed = list(allowed)
    close = difflib.get_close_matches(name, allowed, n=4, cutoff=0.6)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"known are {', '.join(sorted(allowed))}"


def check_choice(name: str, value: Any, allowed: Collection[str]) -> None:
    """Raise ConfigError unless a setting has one of its allowed values.

    Args:
        name: the setting, used in the error.
        value: its value.
        allowed: the values that are allowed, such as ``get_args`` of a ``Literal``.

    Example:
        >>> check_choice("split", "tset", ["train", "test"])
        Traceback (most recent call last):
        mi_jax.basics.errors.ConfigError: split='tset' is unknown; did you mean test?
    """
    if value not in allowed:
        raise ConfigError(f"{name}={value!r} is unknown; {nearest(str(value), allowed)}")


def require(condition: bool, message: str) -> None:
    """Raise ConfigError unless a condition holds.

    The message is built before the call. If building it is costly, or fails while the condition
    holds, use ``if`` and ``raise`` instead.

    Args:
        condition: what must hold.
        message: text of the error.
    """
    if not condition:
        raise ConfigError(message)


def whole(name: str, value: Any) -> int:
    """Convert a whole number, Python's or NumPy's, to an int.

    Args:
        name: the setting, used in the error.
        value: the number.

    Raises:
        ConfigError: if the value is not a whole number, or is a bool.

    Example:
        >>> whole("step", 3)
        3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ConfigError(f"{name}={value!r}: must be a whole number.")
    return int(number)
