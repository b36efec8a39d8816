"""mi_jax: how mechanisms form while a network trains.

Importing this package imports no jax: names are found when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mi_jax.comparing import compare as compare
    from mi_jax.experiment import measure as measure
    from mi_jax.experiment import train as train
    from mi_jax.forks import fork as fork
    from mi_jax.forks import zoom as zoom
    from mi_jax.models.taps import capture as capture
    from mi_jax.run import Run as Run
    from mi_jax.run import open_run as open_run
    from mi_jax.settings import Experiment as Experiment
    from mi_jax.studying import study as study
    from mi_jax.sweeping import sweep as sweep
    from mi_jax.weights import load_weights as load_weights

_HOMES = {
    "Experiment": "mi_jax.settings",
    "Run": "mi_jax.run",
    "train": "mi_jax.experiment",
    "open_run": "mi_jax.run",
    "measure": "mi_jax.experiment",
    "load_weights": "mi_jax.weights",
    "compare": "mi_jax.comparing",
    "fork": "mi_jax.forks",
    "zoom": "mi_jax.forks",
    "study": "mi_jax.studying",
    "sweep": "mi_jax.sweeping",
    "capture": "mi_jax.models.taps",
}
_MODULES = (
    "across",
    "contracts",
    "dynamics",
    "errors",
    "interventions",
    "landscape",
    "measures",
    "models",
    "planted",
    "plots",
    "tasks",
    "training",
)

__all__ = [*sorted(_HOMES), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"mi_jax.{name}")
    raise AttributeError(f"module 'mi_jax' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
