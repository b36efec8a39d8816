"""Checks of settings that several models share. Each raises ConfigError for an invalid setting."""

import math
from typing import Any, get_args

from mi_jax.basics.errors import ConfigError, check_choice


def check_at_least_one(settings: Any, *names: str) -> None:
    """Refuses a field below 1. A field that is None is not checked."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value >= 1:
            raise ConfigError(f"{name}={value}: must be at least 1.")


def check_init_scale(scale: float) -> None:
    """Refuses an initial scale that is negative, infinite or NaN."""
    if not 0 <= scale < math.inf:
        raise ConfigError(f"init_scale={scale}: must be a finite number of at least 0.")


def check_finite(settings: Any, name: str) -> None:
    """Refuses a field that is infinite or NaN."""
    value = getattr(settings, name)
    if not math.isfinite(value):
        raise ConfigError(f"{name}={value}: must be a finite number.")


def check_choices(settings: Any, choices: dict[str, Any]) -> None:
    """Refuses a field whose value is not among its choices.

    Args:
        settings: the dataclass to check.
        choices: the ``Literal`` of allowed values, by field name.
    """
    for name, literal in choices.items():
        check_choice(name, getattr(settings, name), get_args(literal))
