"""mi_jax: how mechanisms form while a network trains.

Importing this package imports no jax: names are found when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mi_jax.basics import moved

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from mi_jax.models.taps import capture as capture
    from mi_jax.report.study import study as study
    from mi_jax.runs.compare import compare as compare
    from mi_jax.runs.experiment import Experiment as Experiment
    from mi_jax.runs.fork import fork as fork
    from mi_jax.runs.fork import zoom as zoom
    from mi_jax.runs.networks import as_module as as_module
    from mi_jax.runs.run import Run as Run
    from mi_jax.runs.run import measure as measure
    from mi_jax.runs.run import open_run as open_run
    from mi_jax.runs.sweep import sweep as sweep
    from mi_jax.runs.train import train as train
    from mi_jax.runs.weights import load_weights as load_weights

_HOMES = {
    "Experiment": "mi_jax.runs.experiment",
    "Run": "mi_jax.runs.run",
    "as_module": "mi_jax.runs.networks",
    "capture": "mi_jax.models.taps",
    "compare": "mi_jax.runs.compare",
    "fork": "mi_jax.runs.fork",
    "load_weights": "mi_jax.runs.weights",
    "measure": "mi_jax.runs.run",
    "open_run": "mi_jax.runs.run",
    "study": "mi_jax.report.study",
    "sweep": "mi_jax.runs.sweep",
    "train": "mi_jax.runs.train",
    "zoom": "mi_jax.runs.fork",
}
"""Public functions and classes by the module that defines them."""

_MODULES = {
    "across": "mi_jax.runs.across",
    "contracts": "mi_jax.contracts",
    "dynamics": "mi_jax.dynamics",
    "errors": "mi_jax.basics.errors",
    "interventions": "mi_jax.interventions",
    "landscape": "mi_jax.landscape",
    "measures": "mi_jax.measures",
    "models": "mi_jax.models",
    "planted": "mi_jax.planted",
    "plots": "mi_jax.plots",
    "tasks": "mi_jax.tasks",
    "training": "mi_jax.training",
}
"""Public modules by their path."""

__all__ = [*sorted(_HOMES), *_MODULES]

moved.install()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'mi_jax' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
