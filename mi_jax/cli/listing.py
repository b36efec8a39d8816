"""Rows of ``mi-jax list``: tasks, models, measures, options of measures, experiments."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import jax

from mi_jax.basics.records import constructor
from mi_jax.measures.probes import Probe
from mi_jax.measuring.registry import EXPENSIVE, READINGS, WITH_OPTIONS
from mi_jax.models import MODELS
from mi_jax.tasks import TASKS

Row = tuple[str, ...]
"""A name and the cells that describe it."""


def _tasks() -> list[Row]:
    rows = []
    for name, task_class in TASKS.items():
        task = task_class.smallest()
        truth = task.evaluation(task.data(0), jax.random.key(0)).ground_truth
        summary = _summary(type(task))
        rows.append((name, task.paper, summary, ", ".join(truth), constructor(task)))
    return rows


def _models() -> list[Row]:
    return [(name, _summary(model)) for name, model in MODELS.items()]


def _measures() -> list[Row]:
    rows = []
    for registry, note in ((READINGS, ""), (EXPENSIVE, ", when named")):
        for measure in registry.values():
            when = "retrospective" if measure.retrospective else "online"
            for name, dims in measure.variables.items():
                rows.append(
                    (name, f"{when}{note}", " ".join(["seed", "step", *dims]), measure.source)
                )
    return rows


def _options() -> list[Row]:
    rows = []
    for name, make in WITH_OPTIONS.items():
        options = [
            f"{parameter.name}={parameter.default!r}"
            for parameter in inspect.signature(make).parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        if name.startswith("probe"):
            # Further keywords of these measures are the settings of the probe.
            options += [f"{field.name}={field.default!r}" for field in fields(Probe)]
        rows.append((name, _summary(make), ", ".join(options)))
    return rows


def _experiments() -> list[Row]:
    # The experiments import all that trains, which the other lists do not need.
    from mi_jax.runs.library import shipped, summary

    return [(name, summary(file)) for name, file in shipped().items()]


def _summary(documented: Any) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join((documented.__doc__ or "").strip().split("\n\n")[0].split())


LISTS: dict[str, tuple[list[str], Callable[[], list[Row]]]] = {
    "tasks": (["paper", "description", "ground truth", "smallest setting"], _tasks),
    "models": (["description"], _models),
    "measures": (["when", "dims", "source"], _measures),
    "options": (["description", "options and their defaults"], _options),
    "experiments": (["description"], _experiments),
}
"""By kind, the heads of the cells after the name, and the function that makes the rows."""
