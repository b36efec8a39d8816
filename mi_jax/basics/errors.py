"""The errors that a user can do something about. Each says what was given, what is allowed, and
what to do next.
"""

import difflib
import operator
from collections.abc import Iterable
from typing import Any


class MiJaxError(Exception):
    """Base of the errors below: the command line prints its message without a traceback."""


class ConfigError(MiJaxError, ValueError):
    """A setting that can't be: refused where it enters, before anything is built or written."""


class RunError(MiJaxError, RuntimeError):
    """A run directory that can't be opened, resumed or written as asked."""


class DamagedError(RunError):
    """Stored data whose hash or form is wrong. Names the segment."""


class MeasureError(MiJaxError, ValueError):
    """A measure that is unknown, or that needs something which the model or the task doesn't have."""


class WeightsError(MiJaxError, ValueError):
    """A file of weights that doesn't fit the model."""


class Interrupted(MiJaxError):
    """Training was stopped by a signal, after everything done so far was saved."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A half sentence for an error about an unknown name: the nearest allowed ones, or all of them
    where none is near.

    Example:
        >>> nearest("mlp.pots", ["mlp.post", "mlp.pre", "attn.z"])
        'did you mean mlp.post, mlp.pre?'
    """
    allowed = list(allowed)
    close = difflib.get_close_matches(name, allowed, n=4, cutoff=0.6)
    return (
        f"did you mean {', '.join(close)}?" if close else f"known are {', '.join(sorted(allowed))}"
    )


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with ``message`` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def whole(name: str, value: Any) -> int:
    """The whole number that a value is, Python's or NumPy's, as an int. Raises ConfigError for
    anything else.

    Example:
        >>> whole("step", 3)
        3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    require(
        number is not None and not isinstance(value, bool),
        f"{name}={value!r}: must be a whole number",
    )
    return int(value)
